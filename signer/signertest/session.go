package signertest

import (
	"cmp"
	"context"
	"crypto"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zonemint/zonemint/signer"
)

// caseTimeout bounds one case, so that a backend that hangs fails its own case.
const caseTimeout = 3 * time.Minute

// session is what one case works with.
type session struct {
	testing.TB
	h   Harness
	ctx context.Context
}

func newSession(tb testing.TB, h Harness) *session {
	ctx, cancel := context.WithTimeout(tb.Context(), caseTimeout)
	tb.Cleanup(cancel)
	return &session{TB: tb, h: h, ctx: ctx}
}

// connect opens a connection of its own. Every error that passes through it is
// searched for secrets.
func (s *session) connect() *watched {
	s.Helper()
	w := &watched{Backend: s.h.Open(s), s: s}
	s.Cleanup(func() {
		if err := w.Close(); err != nil {
			s.Errorf("close: %v", err)
		}
	})
	return w
}

// algorithm returns the one under test whose keys are made fastest.
func (s *session) algorithm() signer.Algorithm {
	return slices.MinFunc(s.h.Algorithms, func(a, b signer.Algorithm) int { return cmp.Compare(a.RSABits(), b.RSABits()) })
}

func newSpec(alg signer.Algorithm) signer.Spec {
	return signer.Spec{Keyset: "zone", Serial: 1, Label: signer.NewLabel(), Algorithm: alg}
}

func (s *session) create(b signer.Backend, spec signer.Spec) signer.Ref {
	s.Helper()
	ref, err := signer.Create(s.ctx, b, spec)
	if err != nil {
		s.Fatalf("create %s: %v", spec.Algorithm, err)
	}
	if len(ref) == 0 {
		s.Fatalf("create %s: an empty reference", spec.Algorithm)
	}
	return ref
}

func (s *session) open(b signer.Backend, spec signer.Spec, ref signer.Ref, public crypto.PublicKey) *signer.Key {
	s.Helper()
	key, err := signer.Open(s.ctx, b, spec, ref, public)
	if err != nil {
		s.Fatalf("open %s: %v", spec.Algorithm, err)
	}
	return key
}

// newKey makes a key in b and opens it.
func (s *session) newKey(b signer.Backend, spec signer.Spec) (*signer.Key, signer.Ref) {
	s.Helper()
	ref := s.create(b, spec)
	return s.open(b, spec, ref, nil), ref
}

func (s *session) find(b signer.Backend, spec signer.Spec) []signer.Ref {
	s.Helper()
	refs, err := signer.Find(s.ctx, b, spec)
	if err != nil {
		s.Fatalf("find: %v", err)
	}
	return refs
}

// findWithin is find, asked again once the consistency window has passed if
// nothing was there at first.
func (s *session) findWithin(b signer.Backend, spec signer.Spec) []signer.Ref {
	s.Helper()
	refs := s.find(b, spec)
	if len(refs) == 0 {
		time.Sleep(b.Traits().ConsistencyWindow)
		refs = s.find(b, spec)
	}
	return refs
}

// list returns what b lists under any label.
func (s *session) list(b signer.Backend) []signer.Labelled {
	s.Helper()
	var all []signer.Labelled
	err := signer.List(s.ctx, b, func(l signer.Labelled) error {
		all = append(all, l)
		return nil
	})
	if err != nil {
		s.Fatalf("list: %v", err)
	}
	return all
}

// wantCode fails unless err has one of the codes.
func (s *session) wantCode(what string, err error, codes ...signer.Code) {
	s.Helper()
	if err == nil {
		s.Errorf("%s: no error, want %v", what, codes)
	} else if got := signer.CodeOf(err); !slices.Contains(codes, got) {
		s.Errorf("%s: %v: code is %q, want one of %q", what, err, got, codes)
	}
}

// tryOpen opens ref and reads its public half: a backend that finds out only
// then that it cannot serve a reference is early enough.
func (s *session) tryOpen(b signer.Backend, spec signer.Spec, ref signer.Ref) error {
	_, err := signer.Open(s.ctx, b, spec, ref, nil)
	return err
}

// watched is a backend that counts calls and reads error texts.
type watched struct {
	signer.Backend
	s     *session
	calls atomic.Int64
}

func (w *watched) saw(err error) error {
	if err == nil {
		return nil
	}
	text := fmt.Sprintf("%v\n%+v", err, err)
	for _, secret := range w.s.h.Secrets {
		if strings.Contains(text, secret) {
			w.s.Errorf("the text of an error contains a secret: %s", strings.ReplaceAll(err.Error(), secret, "[SECRET]"))
		}
	}
	return err
}

func (w *watched) Create(ctx context.Context, spec signer.Spec) (signer.Ref, error) {
	w.calls.Add(1)
	ref, err := w.Backend.Create(ctx, spec)
	return ref, w.saw(err)
}

func (w *watched) Find(ctx context.Context, spec signer.Spec) ([]signer.Ref, error) {
	w.calls.Add(1)
	refs, err := w.Backend.Find(ctx, spec)
	return refs, w.saw(err)
}

func (w *watched) List(ctx context.Context, each func(signer.Labelled) error) error {
	w.calls.Add(1)
	return w.saw(w.Backend.List(ctx, each))
}

func (w *watched) Open(ctx context.Context, spec signer.Spec, ref signer.Ref) (signer.Handle, error) {
	w.calls.Add(1)
	h, err := w.Backend.Open(ctx, spec, ref)
	if err != nil {
		return nil, w.saw(err)
	}
	return &watchedHandle{Handle: h, w: w}, nil
}

func (w *watched) Destroy(ctx context.Context, spec signer.Spec, ref signer.Ref) error {
	w.calls.Add(1)
	return w.saw(w.Backend.Destroy(ctx, spec, ref))
}

func (w *watched) Close() error { return w.saw(w.Backend.Close()) }

type watchedHandle struct {
	signer.Handle
	w *watched
}

func (h *watchedHandle) Public(ctx context.Context) (crypto.PublicKey, error) {
	h.w.calls.Add(1)
	pub, err := h.Handle.Public(ctx)
	return pub, h.w.saw(err)
}

func (h *watchedHandle) Sign(ctx context.Context, alg signer.Algorithm, in []byte) ([]byte, error) {
	h.w.calls.Add(1)
	sig, err := h.Handle.Sign(ctx, alg, in)
	return sig, h.w.saw(err)
}
