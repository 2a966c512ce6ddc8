package service

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"golang.org/x/sync/errgroup"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/service/keyring"
	"github.com/zonemint/zonemint/signer"
)

// guarded puts a guard before every backend outside this process: it is measured,
// and while it is down nobody waits for it.
func (s *Service) guarded(backends map[string]signer.Backend) map[string]signer.Backend {
	out := make(map[string]signer.Backend, len(backends))
	s.guards, s.contacts = map[string]*signer.Guard{}, map[string]*contact{}
	for name, b := range backends {
		if !b.Traits().Remote {
			out[name] = b
			continue
		}
		c := &contact{}
		g := signer.NewGuard(b, signer.GuardOptions{
			MaxPause: 500 * time.Millisecond, // so that signing resumes within two seconds, log-in and all
			Observe: func(op string, took time.Duration, err error) {
				c.observe(op, err)
				s.metrics.backendCalled(b, name, op, took, err)
			},
			Refused: func(op string) { s.metrics.backendRefused(name, op) },
			Changed: func(down error) { s.backendChanged(name, down) },
		})
		out[name], s.guards[name], s.contacts[name] = g, g, c
	}
	return out
}

// signingKey returns the key that signs for a keyset now. While its backend is known
// to be down that is an error, so that no row is written for a token which nobody
// would sign.
func (s *Service) signingKey(ks *keyring.Keyset) (*keyring.Active, error) {
	key, err := ks.Active()
	if err != nil {
		return nil, err
	}
	if g, ok := s.guards[key.Backend]; ok {
		if down := g.Refusing(); down != nil {
			return nil, &signer.Error{Op: "sign", Code: signer.Unavailable, Err: down}
		}
	}
	return key, nil
}

// backendDownError says that a backend does not answer. Its text is for everybody; what
// the backend said is in the log.
type backendDownError struct {
	name string
	err  error
}

func (e *backendDownError) Error() string { return fmt.Sprintf("backend %q does not answer", e.name) }

func (e *backendDownError) Unwrap() error { return e.err }

// backendsUp says which backend that a key should sign with is down.
func (s *Service) backendsUp() error {
	for _, ks := range s.ring.Load().Keysets() {
		key, err := ks.Active()
		if err != nil {
			continue
		}
		if g, ok := s.guards[key.Backend]; ok {
			if err := cmp.Or(g.Down(), s.contacts[key.Backend].silence()); err != nil {
				return &backendDownError{key.Backend, err}
			}
		}
	}
	return nil
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

// contact says whether a backend has answered since this process began, and if not
// what it failed with. A guard knows of backends that went away, and only after some
// calls.
type contact struct {
	answered atomic.Bool
	failed   atomic.Pointer[error]
}

// observe is told of calls that were made. To open a key may be none of the backend's.
func (c *contact) observe(op string, err error) {
	if err == nil && op != "open" && !c.answered.Load() {
		c.answered.Store(true)
	}
}

// silence returns why the backend counts as away, nil if it does not.
func (c *contact) silence() error {
	if err := c.failed.Load(); err != nil && !c.answered.Load() {
		return *err
	}
	return nil
}

// How often a backend that is down is asked whether it is back, and how long
// it has for an answer.
const (
	probeInterval = 250 * time.Millisecond
	probeTime     = 10 * time.Second
)

// watchBackends asks backends whether they are there, until ctx ends: at the start,
// and while they are down. Requests cannot be left to find out that one is back: a
// replica that says it is not ready may get none.
func (s *Service) watchBackends(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for name, guard := range s.guards {
		g.Go(func() error { return s.watchBackend(ctx, name, guard) })
	}
	return g.Wait()
}

func (s *Service) watchBackend(ctx context.Context, name string, guard *signer.Guard) error {
	tick := time.NewTicker(probeInterval)
	defer tick.Stop()
	c := s.contacts[name]
	for known := c.answered.Load(); ; {
		if !c.answered.Load() || guard.Down() != nil || s.unopened(name) != nil {
			asked, err := s.probeBackend(ctx, name, guard)
			switch {
			case ctx.Err() != nil:
				return ctx.Err()
			case signer.CodeOf(err) == signer.Unavailable:
				c.failed.Store(&err)
			case asked:
				c.answered.Store(true)
			}
		}
		if !known && c.answered.Load() {
			known = true
			s.attempts.forgive() // those that EnsureKeysetLater could not make
			s.nudge()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// EnsureKeysetLater does what EnsureKeyset does, but that the backend does not answer
// is no error: the keyset is there, and its keys are made once Run finds that the
// backend answers.
func (s *Service) EnsureKeysetLater(ctx context.Context, req *pb.Keyset) error {
	err := s.EnsureKeyset(ctx, req)
	switch signer.CodeOf(err) {
	case signer.Unavailable, signer.Throttled:
		s.log.ErrorContext(ctx, "keyset has no key that signs yet: its backend does not answer",
			slog.String("keyset", req.GetName()), slog.Any("error", err))
		return s.ring.Refresh(ctx) // the keyset is served from the start
	default:
		return err
	}
}

// unopened returns a keyset whose key could not be opened because its backend was
// away, nil if there is none.
func (s *Service) unopened(name string) *keyring.Keyset {
	return s.keysetIn(name, func(ks *keyring.Keyset) bool { return signer.CodeOf(ks.Ready()) == signer.Unavailable })
}

// keysetIn returns one of the keysets whose keys sign in a backend, nil if there is none.
func (s *Service) keysetIn(name string, is func(*keyring.Keyset) bool) *keyring.Keyset {
	for _, ks := range s.ring.Load().Keysets() {
		if key, err := ks.Active(); err == nil && key.Backend == name && is(ks) {
			return ks
		}
	}
	return nil
}

// probeBackend opens a key that could not be opened, asks for a signature by one that
// signs, or looks for one that is being made. A backend that has none of those is
// not asked: nobody wants anything of it.
func (s *Service) probeBackend(ctx context.Context, name string, guard *signer.Guard) (asked bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	if ks := s.unopened(name); ks != nil {
		key, err := ks.Active()
		if err == nil {
			_, err = keyring.OpenKey(ctx, s.cfg.Backends, ks.Name, key.SigningKey)
		}
		if err == nil {
			s.nudge() // the heartbeat opens all of them
		}
		return true, err
	}
	if ks := s.keysetIn(name, func(ks *keyring.Keyset) bool { return ks.Ready() == nil }); ks != nil {
		key, err := ks.Active()
		if err == nil {
			err = key.Probe(ctx)
		}
		return true, err
	}
	ring := s.ring.Load()
	for _, k := range ring.Unfinished() {
		ks, err := ring.KeysetByID(k.KeysetID)
		if err != nil || k.Backend != name {
			continue
		}
		spec, err := keyring.Spec(ks.Name, k)
		if err == nil {
			_, err = signer.Find(ctx, guard, spec)
		}
		return true, err
	}
	return false, nil
}

func (m *Metrics) backendInstruments(meter metric.Meter, s *Service) (err error) {
	if m.backendCalls, err = meter.Float64Histogram("zonemint.backend.call.duration", metric.WithUnit("s"), secondsBuckets,
		metric.WithDescription("How long calls of signing backends took, by backend, operation and kind of failure.")); err != nil {
		return err
	}
	if m.backendRefusals, err = meter.Int64Counter("zonemint.backend.refused",
		metric.WithDescription("Calls that were not made because the backend is down.")); err != nil {
		return err
	}
	for _, g := range []struct {
		name, text string
		read       func(*signer.Guard) (float64, bool)
	}{
		{"zonemint.backend.up", "Whether a signing backend answers.", func(g *signer.Guard) (float64, bool) {
			if g.Down() != nil {
				return 0, true
			}
			return 1, true
		}},
		{"zonemint.backend.in.use", "Sessions or connections of a signing backend in use.", usage(func(u signer.Usage) float64 { return float64(u.InUse) })},
		{"zonemint.backend.limit", "How many sessions or connections may be in use.", usage(func(u signer.Usage) float64 { return float64(u.Limit) })},
		{"zonemint.backend.waiting", "Calls that wait for a session or connection.", usage(func(u signer.Usage) float64 { return float64(u.Waiting) })},
		{"zonemint.backend.gave.up", "Calls that waited for one in vain, since the start.", usage(func(u signer.Usage) float64 { return float64(u.GaveUp) })},
	} {
		_, err := meter.Float64ObservableGauge(g.name, metric.WithDescription(g.text),
			metric.WithFloat64Callback(func(_ context.Context, o metric.Float64Observer) error {
				for name, guard := range s.guards {
					if v, ok := g.read(guard); ok {
						o.Observe(v, metric.WithAttributes(attribute.String("backend", name)))
					}
				}
				return nil
			}))
		if err != nil {
			return err
		}
	}
	return nil
}

func usage(of func(signer.Usage) float64) func(*signer.Guard) (float64, bool) {
	return func(g *signer.Guard) (float64, bool) {
		u, ok := g.Usage()
		return of(u), ok
	}
}

// backendCalled measures a call. The kind of its failure is b's own.
func (m *Metrics) backendCalled(b signer.Backend, name, op string, took time.Duration, err error) {
	code := "ok"
	if err != nil {
		code = b.Code(err).String()
	}
	m.backendCalls.Record(context.Background(), took.Seconds(), metric.WithAttributes(
		attribute.String("backend", name), attribute.String("op", op), attribute.String("code", code)))
}

func (m *Metrics) backendRefused(name, op string) {
	m.backendRefusals.Add(context.Background(), 1, metric.WithAttributes(attribute.String("backend", name), attribute.String("op", op)))
}
