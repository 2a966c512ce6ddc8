package signertest

import (
	"bytes"
	"crypto"
	"maps"
	"slices"

	"github.com/zonemint/zonemint/signer"
)

// undeclared checks every algorithm that the backend does not claim, and none.
func (s *session) undeclared() {
	b := s.connect()
	for _, alg := range append(signer.Algorithms(), signer.Algorithm{}) {
		if slices.Contains(b.Traits().Algorithms, alg) {
			continue
		}
		_, err := signer.Create(s.ctx, b, newSpec(alg))
		s.wantCode("create "+alg.String(), err, signer.Unsupported)
		_, err = signer.Open(s.ctx, b, newSpec(alg), signer.Ref("any"), nil)
		s.wantCode("open "+alg.String(), err, signer.Unsupported)
	}
	s.wantCalls(b, 0)
}

func (s *session) incompleteSpec() {
	b := s.connect()
	for name, spoil := range map[string]func(*signer.Spec){
		"no keyset": func(spec *signer.Spec) { spec.Keyset = "" },
		"no serial": func(spec *signer.Spec) { spec.Serial = 0 },
		"no label":  func(spec *signer.Spec) { spec.Label = "" },
	} {
		spec := newSpec(s.algorithm())
		spoil(&spec)
		_, err := signer.Create(s.ctx, b, spec)
		s.wantCode(name, err, signer.Misconfigured)
	}
	s.wantCalls(b, 0)
}

// wrongInput checks that digests of a wrong length, and options that ask for
// another algorithm, never leave the process.
func (s *session) wrongInput() {
	b := s.connect()
	for _, alg := range s.onePerHash() {
		key, _ := s.newKey(b, newSpec(alg))
		before := b.calls.Load()
		if size := hashSize(alg); size != 0 {
			for _, n := range []int{0, 1, size - 1, size + 1, 2 * size} {
				_, err := key.SignContext(s.ctx, make([]byte, n), alg.Opts())
				s.wantCode("a digest of a wrong length", err, signer.Misconfigured)
			}
		}
		for _, opts := range []crypto.SignerOpts{nil, crypto.SHA1, crypto.MD5SHA1} {
			_, err := key.SignContext(s.ctx, make([]byte, hashSize(alg)), opts)
			s.wantCode("options for another algorithm", err, signer.Unsupported)
		}
		s.wantCalls(b, before)
	}
}

func (s *session) wantCalls(b *watched, want int64) {
	s.Helper()
	if got := b.calls.Load(); got != want {
		s.Errorf("%d calls reached the backend that should not have", got-want)
	}
}

// onePerHash returns, of the algorithms under test, the cheapest for each hash.
func (s *session) onePerHash() []signer.Algorithm {
	cheapest := map[crypto.Hash]signer.Algorithm{}
	for _, alg := range s.h.Algorithms {
		if seen, ok := cheapest[alg.Hash()]; !ok || alg.RSABits() < seen.RSABits() {
			cheapest[alg.Hash()] = alg
		}
	}
	return slices.Collect(maps.Values(cheapest))
}

func hashSize(alg signer.Algorithm) int {
	if alg.Hash() == 0 {
		return 0
	}
	return alg.Hash().Size()
}

// otherSpec opens a key's reference as if it belonged to another key.
func (s *session) otherSpec() {
	b := s.connect()
	spec := newSpec(s.algorithm())
	ref := s.create(b, spec)
	public := s.open(b, spec, ref, nil).Public()

	type change struct {
		name  string
		apply func(*signer.Spec)
	}
	var changes []change
	if !s.h.Unbound {
		changes = append(changes,
			change{"another keyset", func(spec *signer.Spec) { spec.Keyset = "user" }},
			change{"another serial", func(spec *signer.Spec) { spec.Serial++ }},
			change{"another label", func(spec *signer.Spec) { spec.Label = signer.NewLabel() }})
	}
	for _, alg := range b.Traits().Algorithms {
		// Whoever cannot tell RS256 from RS512 still sees that a key is not on P-256.
		if alg != spec.Algorithm && (!s.h.Unbound || alg.Fits(public) != nil) {
			changes = append(changes, change{alg.String(), func(spec *signer.Spec) { spec.Algorithm = alg }})
		}
	}
	for _, c := range changes {
		other := spec
		c.apply(&other)
		s.wantCode("opened as "+c.name, s.tryOpen(b, other, ref), signer.Corrupt, signer.NotFound, signer.Misconfigured)
	}
	if err := s.tryOpen(b, spec, ref); err != nil {
		s.Errorf("afterwards the right spec fails too: %v", err)
	}
}

func (s *session) garbageRef() {
	b := s.connect()
	want := []signer.Code{signer.NotFound, signer.Misconfigured, signer.Corrupt}
	if b.Traits().Stateless {
		want = []signer.Code{signer.Corrupt}
	}
	for _, ref := range []signer.Ref{
		nil, {}, {0}, {1}, signer.Ref("no such reference"), bytes.Repeat([]byte{0xff}, 4096),
	} {
		s.wantCode("open", s.tryOpen(b, newSpec(s.algorithm()), ref), want...)
	}
}

func (s *session) unknownRef() {
	b := s.connect()
	s.wantCode("open", s.tryOpen(b, newSpec(s.algorithm()), s.h.UnknownRef), signer.NotFound)
}
