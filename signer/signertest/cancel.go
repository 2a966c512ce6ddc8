package signertest

import (
	"context"
	"errors"
	"time"

	"github.com/zonemint/zonemint/signer"
)

// promptly is how soon after the end of its context a call has to return. It is more
// than what a busy machine may pause for.
const promptly = 10 * time.Second

// operations are all calls that a context can end. key belongs to spec and ref.
func (s *session) operations(b signer.Backend, spec signer.Spec, ref signer.Ref, key *signer.Key) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"create": func(ctx context.Context) error {
			_, err := signer.Create(ctx, b, newSpec(spec.Algorithm))
			return err
		},
		"find": func(ctx context.Context) error {
			_, err := signer.Find(ctx, b, spec)
			return err
		},
		"list": func(ctx context.Context) error {
			return signer.List(ctx, b, func(signer.Labelled) error { return nil })
		},
		"open": func(ctx context.Context) error {
			_, err := signer.Open(ctx, b, spec, ref, nil)
			return err
		},
		"sign": func(ctx context.Context) error {
			_, err := key.SignJWS(ctx, []byte("header.payload"))
			return err
		},
		"destroy": func(ctx context.Context) error { return signer.Destroy(ctx, b, spec, ref) },
	}
}

// endedContext checks both what callers see and, past package signer, that
// the driver itself looks at its context.
func (s *session) endedContext() {
	b := s.connect()
	spec := newSpec(s.algorithm())
	key, ref := s.newKey(b, spec)
	ctx, cancel := context.WithCancel(s.ctx)
	cancel()
	for name, call := range s.operations(b, spec, ref, key) {
		s.wantCanceled(name, call(ctx))
	}
	s.driverLooks(ctx, b, spec, ref)
	if err := key.Probe(s.ctx); err != nil {
		s.Errorf("a key that was not destroyed: %v", err)
	}
}

func (s *session) driverLooks(ctx context.Context, b *watched, spec signer.Spec, ref signer.Ref) {
	fresh := newSpec(spec.Algorithm)
	if _, err := b.Create(ctx, fresh); err == nil {
		s.Error("the driver's Create ignores that its context has ended")
	} else if refs := s.findWithin(b, fresh); len(refs) != 0 {
		s.Error("the driver's Create made a key though its context had ended before")
	}
	h, err := b.Open(s.ctx, spec, ref)
	if err != nil {
		s.Fatalf("open: %v", err)
	}
	in := make([]byte, hashSize(spec.Algorithm))
	if _, err := h.Sign(ctx, spec.Algorithm, in); err == nil {
		s.Error("the driver's Sign ignores that its context has ended")
	}
	if b.Traits().Stateless {
		return
	}
	if _, err := b.Find(ctx, spec); err == nil {
		s.Error("the driver's Find ignores that its context has ended")
	}
	if err := b.List(ctx, func(signer.Labelled) error { return nil }); err == nil {
		s.Error("the driver's List ignores that its context has ended")
	}
	if err := b.Destroy(ctx, spec, ref); err == nil {
		s.Error("the driver's Destroy ignores that its context has ended")
	}
}

// stalled cancels calls that are under way.
func (s *session) stalled() {
	b := s.connect()
	spec := newSpec(s.algorithm())
	key, ref := s.newKey(b, spec)
	for name, call := range s.operations(b, spec, ref, key) {
		s.stallOne(name, call)
	}
	if err := key.Probe(s.ctx); err != nil && signer.CodeOf(err) != signer.NotFound {
		s.Errorf("after the store has come back: %v", err) // destroyed it may be
	}
}

func (s *session) stallOne(name string, call func(context.Context) error) {
	s.Helper()
	resume := s.h.Stall(s)
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- call(ctx) }()
	select {
	case err := <-done:
		s.Errorf("%s did not reach the store that hangs: %v", name, err)
		resume()
		return
	case <-time.After(20 * time.Millisecond):
		cancel()
	}
	select {
	case err := <-done:
		resume()
		s.wantCanceled(name, err)
	case <-time.After(promptly):
		s.Errorf("%s goes on for %v after its context was cancelled", name, promptly)
		resume()
		<-done // its outcome comes too late to matter
	}
}

func (s *session) wantCanceled(name string, err error) {
	s.Helper()
	s.wantCode(name, err, signer.Canceled)
	if err != nil && !errors.Is(err, context.Canceled) {
		s.Errorf("%s: %v is not context.Canceled", name, err)
	}
}
