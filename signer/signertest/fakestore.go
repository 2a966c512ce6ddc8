package signertest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zonemint/zonemint/signer"
)

// fakeStore is the far side of a [Fake]: what all its connections share.
type fakeStore struct {
	tb   testing.TB
	opts FakeOptions

	mu        sync.Mutex
	keys      map[string]*fakeKey // by reference
	order     []string            // their references, oldest first
	made      int                 // keys ever made
	calls     map[Op]int
	faults    []*Fault
	unsettled map[string]time.Time // by label: when a Create ended without a clear answer
}

type fakeKey struct {
	spec    signer.Spec
	private crypto.Signer
	created time.Time
	visible time.Time // to Find and List, from then on
}

// next counts a call and returns the fault that hits it.
func (s *fakeStore) next(op Op) Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls[op]++
	i := slices.IndexFunc(s.faults, func(f *Fault) bool { return f.Op == op })
	if i < 0 {
		return Fault{}
	}
	hit := *s.faults[i]
	if hit.Times == 1 {
		s.faults = slices.Delete(s.faults, i, i+1)
	} else if hit.Times > 1 {
		s.faults[i].Times--
	}
	return hit
}

// checkCreate fails the test of a caller who may be making a second key.
func (s *fakeStore) checkCreate(spec signer.Spec) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if spec.Keyset == "" || spec.Serial < 1 || spec.Label == "" || !slices.Contains(s.opts.Algorithms, spec.Algorithm) {
		s.tb.Errorf("signertest: create with an unfit spec: %+v", spec)
	}
	if _, ok := s.unsettled[spec.Label]; ok {
		s.tb.Errorf("signertest: label %s is created again after an unknown outcome, without waiting %v and looking first",
			spec.Label, s.opts.ConsistencyWindow)
	}
	for _, key := range s.keys {
		if key.spec.Label == spec.Label {
			s.tb.Errorf("signertest: label %s is created twice", spec.Label)
		}
	}
}

func (s *fakeStore) failedCreate(spec signer.Spec, err error) {
	if !outcomeUnknown(err) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unsettled[spec.Label] = time.Now()
}

// settle notes that a caller has looked for label, which after the window
// answers what became of an unknown outcome.
func (s *fakeStore) settle(label string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if since, ok := s.unsettled[label]; ok && time.Since(since) >= s.opts.ConsistencyWindow {
		delete(s.unsettled, label)
	}
}

// create makes a key, a second one for a label too: stores do.
func (s *fakeStore) create(spec signer.Spec) (signer.Ref, error) {
	private, err := s.opts.Generate(spec.Algorithm)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.made++
	ref := fmt.Sprintf("fake-key-%d", s.made)
	now := time.Now()
	s.keys[ref] = &fakeKey{spec: spec, private: private, created: now, visible: now.Add(s.opts.ConsistencyWindow)}
	s.order = append(s.order, ref)
	return signer.Ref(ref), nil
}

// adopt notes nothing: a store does not know who uses a key.
func (s *fakeStore) adopt(spec signer.Spec, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	key, ok := s.keys[name]
	switch {
	case !strings.HasPrefix(name, "fake-key-"):
		return failf(signer.Misconfigured, "%q is no name", name)
	case !ok:
		return failf(signer.NotFound, "no key %q", name)
	case signer.IsLabel(key.spec.Label):
		return failf(signer.Misconfigured, "key %q is one of zonemint's", name)
	case key.spec.Algorithm != spec.Algorithm:
		return failf(signer.Misconfigured, "key %q is for %s", name, key.spec.Algorithm)
	}
	return nil
}

func (s *fakeStore) find(label string) []signer.Ref {
	s.mu.Lock()
	defer s.mu.Unlock()
	var refs []signer.Ref
	for _, ref := range s.order {
		if key := s.keys[ref]; key.spec.Label == label && !time.Now().Before(key.visible) {
			refs = append(refs, signer.Ref(ref))
		}
	}
	return refs
}

func (s *fakeStore) list() []signer.Labelled {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []signer.Labelled
	for _, ref := range s.order {
		key := s.keys[ref]
		if !signer.IsLabel(key.spec.Label) || time.Now().Before(key.visible) {
			continue
		}
		all = append(all, signer.Labelled{
			Label: key.spec.Label, Ref: signer.Ref(ref),
			Keyset: key.spec.Keyset, Serial: key.spec.Serial, CreatedAt: key.created,
		})
	}
	return all
}

func (s *fakeStore) lookup(spec signer.Spec, ref signer.Ref) (fakeKey, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key, ok := s.keys[string(ref)]
	if !ok {
		return fakeKey{}, failf(signer.NotFound, "no key %q", ref)
	}
	if signer.IsLabel(key.spec.Label) && key.spec != spec || key.spec.Algorithm != spec.Algorithm {
		return fakeKey{}, failf(signer.Corrupt, "key %q is not the one of %s/%d", ref, spec.Keyset, spec.Serial)
	}
	return *key, nil
}

func (s *fakeStore) destroy(spec signer.Spec, ref signer.Ref) error {
	if _, err := s.lookup(spec, ref); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.keys, string(ref))
	s.order = slices.DeleteFunc(s.order, func(r string) bool { return r == string(ref) })
	return nil
}

func generate(alg signer.Algorithm) (crypto.Signer, error) {
	switch {
	case alg.RSABits() != 0:
		return rsa.GenerateKey(rand.Reader, alg.RSABits())
	case alg.Curve() != nil:
		return ecdsa.GenerateKey(alg.Curve(), rand.Reader)
	default:
		_, private, err := ed25519.GenerateKey(rand.Reader)
		return private, err
	}
}
