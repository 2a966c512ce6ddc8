package service

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/service/keyring"
	"github.com/zonemint/zonemint/signer"
)

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
	probeTime     = 3 * time.Second  // for a signature
	findTime      = 10 * time.Second // for a key, which may take a look at all of them
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
		if !c.answered.Load() || guard.Down() != nil || guard.Doubtful() || s.unopened(name) != nil {
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

// EnsureKeysetLater does what EnsureKeyset does, but that the backend does not answer,
// or takes longer to make a key than the lease lasts, which nobody renews yet, is no
// error: the keyset is there, and Run makes its keys.
func (s *Service) EnsureKeysetLater(ctx context.Context, req *pb.Keyset) error {
	err := s.EnsureKeyset(ctx, req)
	switch code := signer.CodeOf(err); {
	case code == signer.Unavailable, code == signer.Throttled, errors.Is(err, errNoLease):
		s.log.ErrorContext(ctx, "keyset has no key that signs yet: making one goes on while the server runs",
			slog.String("keyset", req.GetName()), slog.Any("error", err))
		return s.ring.Refresh(ctx) // the keyset is served from the start
	default:
		return err
	}
}

// unopened returns a key that could not be opened because its backend was away, nil
// if there is none.
func (s *Service) unopened(name string) *keyring.Active {
	for _, key := range s.ring.Load().SigningIn(name) {
		if signer.CodeOf(key.Ready()) == signer.Unavailable {
			return key
		}
	}
	return nil
}

// probeBackend opens a key that could not be opened, asks for a signature by one that
// signs, or looks for one that is being made. A backend that has none of those is
// not asked: nobody wants anything of it.
func (s *Service) probeBackend(ctx context.Context, name string, guard *signer.Guard) (asked bool, err error) {
	within, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	if key := s.unopened(name); key != nil {
		if _, err = keyring.OpenKey(within, s.cfg.Backends, key.Keyset, key.SigningKey); err == nil {
			s.nudge() // the heartbeat opens all of them
		}
		return true, err
	}
	ring := s.ring.Load()
	for _, key := range ring.SigningIn(name) {
		if key.Ready() == nil {
			return true, key.Probe(within)
		}
	}
	for _, k := range ring.Unfinished() {
		ks, err := ring.KeysetByID(k.KeysetID)
		if err != nil || k.Backend != name {
			continue
		}
		spec, err := keyring.Spec(ks.Name, k)
		if err == nil {
			find, cancel := context.WithTimeout(ctx, findTime)
			_, err = signer.Find(find, guard, spec)
			cancel()
		}
		return true, err
	}
	return false, nil
}
