package signertest

import (
	"errors"
	"time"

	"github.com/zonemint/zonemint/signer"
)

// lists checks that one process lists what another has made, once, and passes
// over what is not ours. The store may hold other labelled keys too, of other
// cases, tests or people.
func (s *session) lists() {
	b, other := s.connect(), s.connect()
	spec, neighbour := newSpec(s.algorithm()), newSpec(s.algorithm())
	spec.Keyset, spec.Serial = "user", 7 // to be told from the neighbour's
	var foreign signer.Ref
	if s.h.PlantForeign != nil {
		foreign = s.h.PlantForeign(s)
	}
	refs := map[string]signer.Ref{spec.Label: s.create(b, spec), neighbour.Label: s.create(b, neighbour)}
	time.Sleep(b.Traits().ConsistencyWindow) // for the foreign key also, whose absence is looked at

	for _, want := range []signer.Spec{spec, neighbour} {
		s.checkListed(s.listWithin(other, want), want, refs[want.Label])
	}
	for _, l := range s.list(other) {
		if !signer.IsLabel(l.Label) {
			s.Errorf("listed a key with the label %q, which is not one of zonemint's", l.Label)
		}
		if foreign != nil && signer.SameRef(l.Ref, foreign) {
			s.Errorf("listed the key of somebody else as %q", l.Label)
		}
	}
}

// listWithin returns the one key that b lists under spec's label, asking again
// once the consistency window has passed if it was not there at first.
func (s *session) listWithin(b signer.Backend, spec signer.Spec) signer.Labelled {
	s.Helper()
	listed := labelled(s.list(b), spec.Label)
	if len(listed) == 0 {
		time.Sleep(b.Traits().ConsistencyWindow)
		listed = labelled(s.list(b), spec.Label)
	}
	if len(listed) != 1 {
		s.Fatalf("listed %d keys with the label of one, want 1: %+v", len(listed), listed)
	}
	return listed[0]
}

func labelled(all []signer.Labelled, label string) (some []signer.Labelled) {
	for _, l := range all {
		if l.Label == label {
			some = append(some, l)
		}
	}
	return some
}

// checkListed compares what a backend says of a key with what it was told.
// What it need not store may be missing but not wrong.
func (s *session) checkListed(got signer.Labelled, spec signer.Spec, ref signer.Ref) {
	s.Helper()
	if !signer.SameRef(got.Ref, ref) {
		s.Errorf("listed %q, created %q", got.Ref, ref)
	}
	if got.Keyset != "" && got.Keyset != spec.Keyset {
		s.Errorf("listed for keyset %q, created for %q", got.Keyset, spec.Keyset)
	}
	if got.Serial != 0 && got.Serial != spec.Serial {
		s.Errorf("listed with serial %d, created with %d", got.Serial, spec.Serial)
	}
	// Clocks differ, but not by what one unit taken for another makes.
	if age := time.Since(got.CreatedAt); !got.CreatedAt.IsZero() && age.Abs() > 24*time.Hour {
		s.Errorf("listed as created at %v, which is %v ago", got.CreatedAt, age)
	}
}

// stopsListing goes past package signer, which would hide a driver that goes on.
func (s *session) stopsListing() {
	b := s.connect()
	for range 2 {
		s.create(b, newSpec(s.algorithm()))
	}
	time.Sleep(b.Traits().ConsistencyWindow)
	errEnough := errors.New("enough")
	calls := 0
	err := b.List(s.ctx, func(signer.Labelled) error {
		calls++
		return errEnough
	})
	if !errors.Is(err, errEnough) {
		s.Errorf("the driver's List returns %v and not the error that ended it", err)
	}
	if calls != 1 {
		s.Errorf("the driver's List calls %d times, want 1, if the first call fails", calls)
	}
}

func (s *session) nothingToList() {
	b := s.connect()
	s.create(b, newSpec(s.algorithm()))
	if listed := s.list(b); len(listed) != 0 {
		s.Errorf("a stateless backend listed %d keys", len(listed))
	}
}
