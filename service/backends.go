package service

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/zonemint/zonemint/service/keyring"
	"github.com/zonemint/zonemint/signer"
)

// guarded puts a guard and a budget before every backend outside this process: it is
// measured, while it is down nobody waits for it, and what it can sign in a second is
// shared out among the keysets.
func (s *Service) guarded(backends map[string]signer.Backend) map[string]signer.Backend {
	out := make(map[string]signer.Backend, len(backends))
	s.guards, s.budgets, s.contacts = map[string]*signer.Guard{}, map[string]*signer.Budget{}, map[string]*contact{}
	for name, b := range backends {
		if !b.Traits().Remote {
			out[name] = b
			continue
		}
		c := &contact{}
		guard := signer.NewGuard(b, signer.GuardOptions{
			MaxPause: 500 * time.Millisecond, // so that signing resumes within two seconds, log-in and all
			Observe: func(op string, took time.Duration, err error) {
				c.observe(op, err)
				s.metrics.backendCalled(b, name, op, took, err)
			},
			Refused: func(op string) { s.metrics.backendRefused(context.Background(), name, op) },
			Changed: func(down error) { s.backendChanged(name, down) },
		})
		budget := signer.NewBudget(guard, s.budgetOptions(name, b))
		out[name], s.guards[name], s.budgets[name], s.contacts[name] = budget, guard, budget, c
	}
	return out
}

// budgetOptions are what the backend's configuration says, and who is told.
func (s *Service) budgetOptions(name string, b signer.Backend) signer.BudgetOptions {
	var opts signer.BudgetOptions
	if configured, ok := b.(signer.Budgeted); ok {
		opts = configured.Budget()
	}
	opts.Limited = func(perSecond float64) {
		if perSecond == 0 {
			s.log.Info("backend throttles no more", slog.String("backend", name))
			return
		}
		s.log.Warn("backend throttles; it is asked for fewer signatures until it does so no more",
			slog.String("backend", name), slog.Float64("per_second", perSecond))
	}
	return opts
}

// refusing returns why a key would not sign if it were asked now, nil if it is worth
// asking.
func (s *Service) refusing(key *keyring.Active) error {
	if err := key.Ready(); err != nil {
		return err
	}
	if g, ok := s.guards[key.Backend]; ok {
		if down := g.Refusing(); down != nil {
			return &signer.Error{Op: "sign", Code: signer.Unavailable, Err: down}
		}
	}
	return nil
}

// backendDownError says that a backend does not answer. Its text is for everybody; what
// the backend said is in the log.
type backendDownError struct {
	name string
	err  error
}

func (e *backendDownError) Error() string { return fmt.Sprintf("backend %q does not answer", e.name) }

func (e *backendDownError) Unwrap() error { return e.err }

// backendsUp says which backend that a key should sign with is down, unless a standby
// signs in its place.
func (s *Service) backendsUp() error {
	for _, ks := range s.ring.Load().Keysets() {
		if key, err := ks.Active(); err == nil {
			down := s.away(key)
			if down != nil && (ks.Standby() == nil || s.away(ks.Standby()) != nil) {
				return &backendDownError{key.Backend, down}
			}
		}
	}
	return nil
}

// away returns why the backend of a key counts as not there, nil if it does not.
func (s *Service) away(key *keyring.Active) error {
	g, ok := s.guards[key.Backend]
	if !ok {
		return nil
	}
	return cmp.Or(g.Down(), s.contacts[key.Backend].silence())
}

// backendChanged logs that a backend went down, or is back.
func (s *Service) backendChanged(name string, down error) {
	if down != nil {
		s.log.Error("backend is down, its keys do not sign", slog.String("backend", name), slog.Any("error", down))
		return
	}
	s.log.Info("backend is back", slog.String("backend", name))
	s.attempts.forgive()
	s.nudge()
}

// forgive has the keys that could not be made tried again with the next heartbeat.
func (a *attempts) forgive() {
	a.mu.Lock()
	defer a.mu.Unlock()
	clear(a.failed)
}
