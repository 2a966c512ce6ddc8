package service

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/zonemint/zonemint/service/keyring"
	"github.com/zonemint/zonemint/signer"
	"github.com/zonemint/zonemint/store"
)

// makeLease is how long a replica may take to make a key before another one
// takes over.
const makeLease = 2 * time.Minute

// backoff is how long after its last failure a key is tried again: from once a
// heartbeat to once in five minutes.
func backoff(failures int) time.Duration {
	return min(time.Second<<min(failures, 10), 5*time.Minute)
}

// attempts remembers which keys this process is making, and which it failed to.
type attempts struct {
	mu     sync.Mutex
	making map[uuid.UUID]bool
	failed map[uuid.UUID]failure
}

type failure struct {
	times int
	until time.Time
}

// begin says whether a key may be tried now; end must be called if so.
func (a *attempts) begin(id uuid.UUID, patient bool) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.making[id] || patient && time.Now().Before(a.failed[id].until) {
		return false
	}
	if a.making == nil {
		a.making, a.failed = map[uuid.UUID]bool{}, map[uuid.UUID]failure{}
	}
	a.making[id] = true
	return true
}

func (a *attempts) end(id uuid.UUID, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.making, id)
	if err == nil || errors.Is(err, store.ErrConflict) {
		delete(a.failed, id)
		return
	}
	f := a.failed[id]
	f.until = time.Now().Add(backoff(f.times))
	f.times++
	a.failed[id] = f
}

// startMaking makes a key beside everything else: a backend that hangs holds up
// its own keys only. keepAdvancing waits for the end of what was started.
func (s *Service) startMaking(ctx context.Context, keyset string, k store.SigningKey) {
	if !s.attempts.begin(k.ID, true) {
		return
	}
	s.makers.Go(func() {
		err := s.makeClaimed(ctx, keyset, k, s.actor())
		s.attempts.end(k.ID, err)
		switch {
		case err == nil:
			s.nudge()
			s.log.InfoContext(ctx, "signing key published", slog.String("keyset", keyset), slog.Int("serial", k.Serial))
		case !errors.Is(err, store.ErrConflict) && ctx.Err() == nil: // a conflict: another replica is at it
			s.log.ErrorContext(ctx, "signing key not made", slog.String("keyset", keyset), slog.Int("serial", k.Serial), slog.Any("error", err))
		}
	})
}

// makeKey makes a key at once, whatever came of it before.
func (s *Service) makeKey(ctx context.Context, keyset string, k store.SigningKey, by store.Actor) error {
	if !s.attempts.begin(k.ID, false) {
		return fmt.Errorf("this replica is making the key already: %w", store.ErrConflict)
	}
	err := s.makeClaimed(ctx, keyset, k, by)
	s.attempts.end(k.ID, err)
	return err
}

// makeClaimed takes a key from creating to published.
func (s *Service) makeClaimed(ctx context.Context, keyset string, k store.SigningKey, by store.Actor) error {
	b, ok := s.cfg.Backends[k.Backend]
	if !ok {
		return &signer.Error{Op: "create", Code: signer.Misconfigured, Err: fmt.Errorf("backend %q is not configured", k.Backend)}
	}
	ctx, cancel := context.WithTimeout(ctx, makeLease-10*time.Second)
	defer cancel()
	fence, err := s.store.ClaimSigningKey(ctx, k.ID, s.replica, makeLease)
	if err != nil {
		return err
	}
	// Others may claim the key as soon as this replica's own lease has run out, so
	// nothing may be asked of the backend after that. What was asked before is
	// covered by the window that they wait.
	ctx, release := s.whileLeased(ctx)
	defer release()
	if err = s.makeFenced(ctx, b, keyset, k, fence, by); err != nil {
		s.giveBack(ctx, k.ID, fence)
	}
	if err != nil && errors.Is(context.Cause(ctx), errNoLease) {
		// The calls know no more than that their context has ended, as if the
		// caller had left.
		return fmt.Errorf("making key %s/%d: %w", keyset, k.Serial, errNoLease)
	}
	return err
}

// giveBack lets another replica try: its way to the backend may be better. Where
// that fails the lease runs out.
func (s *Service) giveBack(ctx context.Context, key uuid.UUID, fence int64) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if err := s.store.ReleaseSigningKey(ctx, key, fence); err != nil {
		s.log.WarnContext(ctx, "lease on a key not given back, it will run out", slog.String("key", key.String()), slog.Any("error", err))
	}
}

// makeFenced makes a key that this replica has claimed.
func (s *Service) makeFenced(ctx context.Context, b signer.Backend, keyset string, k store.SigningKey, fence int64, by store.Actor) error {
	// The row with its label is committed and the lease is ours. Dying anywhere
	// below is safe: whoever claims the key next finds by the label what was
	// made, and goes on from there.
	spec, err := keyring.Spec(keyset, k)
	if err != nil {
		return err
	}
	ref, err := obtain(ctx, b, spec, k, fence > 1)
	if err != nil {
		return fmt.Errorf("making key %s/%d: %w", keyset, k.Serial, err)
	}
	made, err := probe(ctx, b, spec, ref)
	if err == nil && k.Adopted != "" && made.Thumbprint != k.Thumbprint {
		err = &signer.Error{Op: "adopt", Code: signer.Corrupt,
			Err: fmt.Errorf("%q is another key than the one that was to be adopted: give this serial up with `zonemint key retire`", k.Adopted)}
	}
	if err != nil {
		return fmt.Errorf("probing key %s/%d: %w", keyset, k.Serial, err)
	}
	// With this the key is in the JWK set. It fails if the lease has run out
	// and another replica has claimed the key.
	_, err = s.store.PublishSigningKey(ctx, k.ID, fence, made, by)
	return err
}

// whileLeased returns a context that ends when the replica's lease runs out.
func (s *Service) whileLeased(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for left := s.clock.remaining(s.cfg.LeaseTTL); left > 0; left = s.clock.remaining(s.cfg.LeaseTTL) {
			if sleep(ctx, min(left, time.Second)) != nil {
				return
			}
		}
		cancel(errNoLease)
	}()
	return ctx, func() {
		cancel(nil)
		<-done
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	if d == 0 {
		return nil
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// obtain returns the private key of a row: one that is taken over, or one that is made.
func obtain(ctx context.Context, b signer.Backend, spec signer.Spec, k store.SigningKey, tried bool) (signer.Ref, error) {
	if k.Adopted != "" {
		return signer.Adopt(ctx, b, spec, k.Adopted)
	}
	return findOrCreate(ctx, b, spec, tried)
}

// findOrCreate returns the key with spec's label, making it only if the backend
// has none: an earlier attempt may have made it and died before it could say so.
// Then what it made may not be visible yet.
func findOrCreate(ctx context.Context, b signer.Backend, spec signer.Spec, tried bool) (signer.Ref, error) {
	if tried {
		if err := sleep(ctx, b.Traits().ConsistencyWindow); err != nil {
			return nil, err
		}
	}
	refs, err := signer.Find(ctx, b, spec)
	switch {
	case err != nil:
		return nil, err
	case len(refs) == 1:
		return refs[0], nil
	case len(refs) > 1:
		return nil, &signer.Error{Op: "find", Code: signer.Corrupt,
			Err: fmt.Errorf("the backend has %d keys labelled %s", len(refs), spec.Label)}
	}
	return signer.Create(ctx, b, spec)
}

// probe signs and verifies with a fresh key before anybody is told of it, and
// fixes its kid.
func probe(ctx context.Context, b signer.Backend, spec signer.Spec, ref signer.Ref) (store.Made, error) {
	key, err := signer.Open(ctx, b, spec, ref, nil)
	if err != nil {
		return store.Made{}, err
	}
	if err := key.Probe(ctx); err != nil {
		return store.Made{}, err
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return store.Made{}, fmt.Errorf("encoding the public key: %w", err)
	}
	thumbprint, err := signer.Thumbprint(key.Public())
	if err != nil {
		return store.Made{}, err
	}
	attestation, err := signer.Attest(ctx, b, spec, ref)
	return store.Made{
		Ref: ref, KID: signer.KID(spec.Keyset, spec.Serial, thumbprint), Thumbprint: thumbprint, PublicKey: public, Attestation: attestation,
	}, err
}
