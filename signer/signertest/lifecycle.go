package signertest

import (
	"context"
	"time"

	"github.com/zonemint/zonemint/signer"
)

// finds checks that one process finds what another has made, and nothing else.
func (s *session) finds() {
	b, other := s.connect(), s.connect()
	spec := newSpec(s.algorithm())
	if refs := s.find(other, spec); len(refs) != 0 {
		s.Errorf("before the key was made %d were found", len(refs))
	}
	s.create(b, newSpec(s.algorithm())) // a neighbour that Find must not show
	key, ref := s.newKey(b, spec)

	refs := s.findWithin(other, spec)
	if len(refs) != 1 {
		s.Fatalf("found %d keys, want 1", len(refs))
	}
	if !signer.SameRef(refs[0], ref) {
		s.Errorf("found %q, created %q", refs[0], ref)
	}
	if found := s.open(other, spec, refs[0], nil); !signer.SamePublicKey(found.Public(), key.Public()) {
		s.Error("the key that was found has another public half")
	}
}

func (s *session) nothingToFind() {
	b := s.connect()
	spec := newSpec(s.algorithm())
	s.create(b, spec)
	if refs := s.find(b, spec); len(refs) != 0 {
		s.Errorf("a stateless backend found %d keys", len(refs))
	}
}

func (s *session) twoLabels() {
	b := s.connect()
	first, second := newSpec(s.algorithm()), newSpec(s.algorithm())
	a, refA := s.newKey(b, first)
	c, refC := s.newKey(b, second)
	if signer.SameRef(refA, refC) {
		s.Error("both labels have the same reference")
	}
	if signer.SamePublicKey(a.Public(), c.Public()) {
		s.Error("both labels have the same public key")
	}
}

// lostReply plays the crash that the label exists for: one process makes a key
// and never learns of it, another waits for the window, looks, and goes on.
func (s *session) lostReply() {
	spec := newSpec(s.algorithm())
	if _, err := signer.Create(s.ctx, &lossy{s.connect()}, spec); err == nil {
		s.Fatal("the reply was to be lost")
	}
	b := s.connect()
	time.Sleep(b.Traits().ConsistencyWindow)
	refs := s.find(b, spec)
	if len(refs) != 1 {
		s.Fatalf("found %d keys after the consistency window, want 1", len(refs))
	}
	if err := s.open(b, spec, refs[0], nil).Probe(s.ctx); err != nil {
		s.Errorf("the key that was found does not sign: %v", err)
	}
}

// lossy creates and then drops the reply.
type lossy struct{ *watched }

func (l *lossy) Create(ctx context.Context, spec signer.Spec) (signer.Ref, error) {
	if _, err := l.watched.Create(ctx, spec); err != nil {
		l.s.Errorf("create: %v", err)
	}
	return nil, context.DeadlineExceeded
}

func (s *session) destroys() {
	b := s.connect()
	spec, neighbour := newSpec(s.algorithm()), newSpec(s.algorithm())
	_, ref := s.newKey(b, spec)
	spared, _ := s.newKey(b, neighbour)
	if err := signer.Destroy(s.ctx, b, spec, ref); err != nil {
		s.Fatalf("destroy: %v", err)
	}
	if err := signer.Destroy(s.ctx, b, spec, ref); err != nil {
		s.wantCode("destroying it again", err, signer.NotFound)
	}
	for name, conn := range map[string]*watched{"the same process": b, "another process": s.connect()} {
		key, err := signer.Open(s.ctx, conn, spec, ref, nil)
		if err == nil {
			err = key.Probe(s.ctx)
		}
		s.wantCode("used by "+name, err, signer.NotFound, signer.Denied, signer.Misconfigured)
	}
	if err := spared.Probe(s.ctx); err != nil {
		s.Errorf("another key was hit: %v", err)
	}
	s.listWithin(b, neighbour) // whether the destroyed key is among them is up to the backend
}

func (s *session) destroysNothing() {
	b := s.connect()
	spec := newSpec(s.algorithm())
	key, ref := s.newKey(b, spec)
	if err := signer.Destroy(s.ctx, b, spec, ref); err != nil {
		s.Errorf("destroy: %v", err)
	}
	if err := key.Probe(s.ctx); err != nil {
		s.Errorf("the reference still exists and yet its key does not sign: %v", err)
	}
}

// closed checks that a closed connection refuses everything, at once and for
// its own part only.
func (s *session) closed() {
	b, other := s.connect(), s.connect()
	spec := newSpec(s.algorithm())
	key, ref := s.newKey(b, spec)
	survivor := s.open(other, spec, ref, key.Public())
	for range 2 {
		if err := b.Close(); err != nil {
			s.Fatalf("close: %v", err)
		}
	}
	_, err := signer.Create(s.ctx, b, newSpec(s.algorithm()))
	s.wantCode("create", err, signer.Closed)
	_, err = signer.Find(s.ctx, b, spec)
	s.wantCode("find", err, signer.Closed)
	err = signer.List(s.ctx, b, func(signer.Labelled) error { return nil })
	s.wantCode("list", err, signer.Closed)
	_, err = signer.Open(s.ctx, b, spec, ref, nil)
	s.wantCode("open", err, signer.Closed)
	_, err = key.SignJWS(s.ctx, []byte("header.payload"))
	s.wantCode("sign", err, signer.Closed)
	s.wantCode("probe", key.Probe(s.ctx), signer.Closed)
	s.wantCode("destroy", signer.Destroy(s.ctx, b, spec, ref), signer.Closed)
	if err := survivor.Probe(s.ctx); err != nil {
		s.Errorf("another connection was hit: %v", err)
	}
}
