package signertest

import "github.com/zonemint/zonemint/signer"

// adopts checks that a key of somebody else signs under a spec of ours, from every
// process, that nothing in the store shows it, and that a name which is
// wrong is said to be.
func (s *session) adopts() {
	b, other := s.connect(), s.connect()
	spec := newSpec(s.algorithm())
	name := s.h.PlantNamed(s, spec.Algorithm)
	ref := s.adopt(b, spec, name)
	if again := s.adopt(other, spec, name); !signer.SameRef(ref, again) {
		s.Errorf("adopted as %q, and again as %q", ref, again)
	}
	for _, c := range []signer.Backend{b, other} {
		if err := s.open(c, spec, ref, nil).Probe(s.ctx); err != nil {
			s.Errorf("probe of the adopted key: %v", err)
		}
	}
	if refs := s.find(other, spec); len(refs) != 0 {
		s.Errorf("adopting left %d keys with the label of the spec in the store", len(refs))
	}
	for _, l := range s.list(other) {
		if signer.SameRef(l.Ref, ref) {
			s.Errorf("the adopted key is listed as %q", l.Label)
		}
	}
	_, err := signer.Adopt(s.ctx, b.Backend, spec, s.h.UnknownName)
	s.wantCode("a name without a key", b.saw(err), signer.NotFound)
	_, err = signer.Adopt(s.ctx, b.Backend, spec, "\x00?\n")
	s.wantCode("no name", b.saw(err), signer.Misconfigured)
	if alg, ok := s.otherAlgorithm(); ok {
		_, err = signer.Adopt(s.ctx, b.Backend, newSpec(alg), name)
		s.wantCode("a key for another algorithm", b.saw(err), signer.Misconfigured)
	}
}

func (s *session) adopt(b *watched, spec signer.Spec, name string) signer.Ref {
	s.Helper()
	ref, err := signer.Adopt(s.ctx, b.Backend, spec, name)
	if b.saw(err) != nil {
		s.Fatalf("adopt %q: %v", name, err)
	}
	return ref
}

// otherAlgorithm returns one that no key of s.algorithm() fits.
func (s *session) otherAlgorithm() (signer.Algorithm, bool) {
	for _, alg := range s.h.Algorithms {
		if alg.RSABits() != s.algorithm().RSABits() || alg.Curve() != s.algorithm().Curve() {
			return alg, true
		}
	}
	return signer.Algorithm{}, false
}
