package service

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/zonemint/zonemint/service/keyring"
	"github.com/zonemint/zonemint/signer"
	"github.com/zonemint/zonemint/store"
)

// makeLease is how long a replica may take to make a key before another one
// takes over.
const makeLease = 2 * time.Minute

// advance finishes what a replica that died left behind: keys in state
// creating, and keysets whose first key was published and not activated. Every
// replica may run it; losing a race changes nothing.
func (s *Service) advance(ctx context.Context) {
	snapshot := s.ring.Load()
	for _, k := range snapshot.Unfinished() {
		s.logAdvance(ctx, k, s.finishKey(ctx, k))
	}
	for _, ks := range snapshot.Idle() {
		s.logAdvance(ctx, ks.Keys[0], s.activateFirst(ctx, ks))
	}
}

func (s *Service) logAdvance(ctx context.Context, k store.SigningKey, err error) {
	attrs := []any{slog.String("key", k.ID.String()), slog.Int("serial", k.Serial)}
	switch {
	case err == nil:
		s.log.InfoContext(ctx, "signing key advanced", attrs...)
	case !errors.Is(err, store.ErrConflict): // a conflict: another replica is at it
		s.log.ErrorContext(ctx, "signing key not advanced", append(attrs, slog.Any("error", err))...)
	}
}

func (s *Service) finishKey(ctx context.Context, k store.SigningKey) error {
	for _, ks := range s.ring.Load().Keysets() {
		if ks.ID == k.KeysetID {
			if err := s.makeKey(ctx, ks.Name, k, s.actor()); err != nil {
				return err
			}
			return s.ring.Refresh(ctx)
		}
	}
	return fmt.Errorf("signing key %s: its keyset cannot be read", k.ID)
}

// activateFirst lets the first key of a keyset sign at once: no verifier can
// hold an older set, since there has been none.
func (s *Service) activateFirst(ctx context.Context, ks *keyring.Keyset) error {
	if _, err := s.store.ActivateSigningKey(ctx, ks.Keys[0].ID, s.actor()); err != nil {
		return err
	}
	return s.ring.Refresh(ctx)
}

// makeKey takes a key from creating to published.
func (s *Service) makeKey(ctx context.Context, keyset string, k store.SigningKey, by store.Actor) error {
	b, ok := s.cfg.Backends[k.Backend]
	if !ok {
		return &signer.Error{Op: "create", Code: signer.Misconfigured, Err: fmt.Errorf("backend %q is not configured", k.Backend)}
	}
	// The lease below keeps other replicas away, but not this one.
	if _, busy := s.making.LoadOrStore(k.ID, struct{}{}); busy {
		return fmt.Errorf("this replica is making the key already: %w", store.ErrConflict)
	}
	defer s.making.Delete(k.ID)
	ctx, cancel := context.WithTimeout(ctx, makeLease-10*time.Second)
	defer cancel()
	fence, err := s.store.ClaimSigningKey(ctx, k.ID, s.replica, makeLease)
	if err != nil {
		return err
	}
	// The row with its label is committed and the lease is ours. Dying anywhere
	// below is safe: whoever claims the key next finds by the label what was
	// made, and goes on from there.
	spec, err := keyring.Spec(keyset, k)
	if err != nil {
		return err
	}
	ref, err := findOrCreate(ctx, b, spec, fence > 1)
	if err != nil {
		return fmt.Errorf("making key %s/%d: %w", keyset, k.Serial, err)
	}
	made, err := probe(ctx, b, spec, ref)
	if err != nil {
		return fmt.Errorf("probing key %s/%d: %w", keyset, k.Serial, err)
	}
	// With this the key is in the JWK set. It fails if the lease has run out
	// and another replica has claimed the key.
	_, err = s.store.PublishSigningKey(ctx, k.ID, fence, made, by)
	return err
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
	return store.Made{
		Ref: ref, KID: signer.KID(spec.Keyset, spec.Serial, thumbprint), Thumbprint: thumbprint, PublicKey: public,
	}, nil
}
