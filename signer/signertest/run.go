// Package signertest holds what keeps signing backends honest: a conformance
// suite, [Run], that every backend passes; [Fake], a backend in memory that
// injects faults and fails the test of a caller who misuses it; and [Dir], a
// backend in a directory, for tests that kill the caller.
package signertest

import (
	"slices"
	"testing"

	"github.com/zonemint/zonemint/signer"
)

// Harness describes a backend under test. What a backend cannot do it declares
// here or in its Traits, where a reviewer sees it.
type Harness struct {
	// Open connects to the key store under test: anew at each call and each
	// time to the same store, so that two connections stand for two processes.
	// The suite closes what it has opened.
	Open func(tb testing.TB) signer.Backend

	// Algorithms are those to test. Empty means all that the backend declares.
	Algorithms []signer.Algorithm

	// UnknownRef is a well-formed reference to a key that the store does not
	// have. Stateless backends need none.
	UnknownRef signer.Ref

	// Secrets are texts that no error may contain: credentials, PINs, URLs.
	Secrets []string

	// Unbound declares that a reference opens under any keyset, serial, label
	// and, as far as the key fits, algorithm, because the store keeps nothing
	// to compare them with.
	Unbound bool

	// BreakKey makes the store sign with another key than the one behind ref.
	// Nil skips the case.
	BreakKey func(tb testing.TB, ref signer.Ref)

	// PlantForeign puts a key into the store that is not zonemint's, with
	// another label or none, and returns what would be its reference. Nil, for
	// stores that are never shared, leaves untested that List passes over it.
	PlantForeign func(tb testing.TB) signer.Ref

	// PlantNamed puts a key into the store that is not zonemint's, and returns the
	// name under which it can be adopted. Every [signer.Adopter] needs it.
	PlantNamed func(tb testing.TB, alg signer.Algorithm) (name string)

	// UnknownName is a well-formed name that the store has no key for.
	UnknownName string

	// Stall makes every call to the store hang until resume is called. Nil
	// skips the case, which no backend with Traits.Remote should.
	Stall func(tb testing.TB) (resume func())
}

// Run tests that a backend keeps the promises of [signer.Backend].
func Run(t *testing.T, h Harness) {
	t.Helper()
	h, traits := h.complete(t)
	for _, c := range cases(h, traits) {
		t.Run(c.name, func(t *testing.T) { c.check(newSession(t, h)) })
	}
}

type testCase struct {
	name  string
	check func(*session)
}

// complete fills in what the backend itself declares.
func (h Harness) complete(tb testing.TB) (Harness, signer.Traits) {
	tb.Helper()
	b := h.Open(tb)
	defer b.Close() //nolint:errcheck // a case of its own looks at Close
	traits := b.Traits()
	if len(traits.Algorithms) == 0 {
		tb.Fatal("the backend declares no algorithm")
	}
	if len(h.Algorithms) == 0 {
		h.Algorithms = traits.Algorithms
	}
	return h, traits
}

// cases lists what is to be checked of the backend that h describes.
func cases(h Harness, traits signer.Traits) []testCase {
	list := []testCase{
		{"traits", (*session).traits},
		{"undeclared algorithms are refused without a call", (*session).undeclared},
		{"incomplete specs are refused without a call", (*session).incompleteSpec},
		{"wrong input is refused without a call", (*session).wrongInput},
		{"two labels make two keys", (*session).twoLabels},
		{"a reference of another spec is refused", (*session).otherSpec},
		{"what is no reference is refused", (*session).garbageRef},
		{"calls with an ended context fail", (*session).endedContext},
		{"concurrent signatures verify", (*session).concurrent},
		{"closed backends refuse", (*session).closed},
	}
	for _, alg := range h.Algorithms {
		list = append(list, testCase{"signs/" + alg.String(), func(s *session) { s.signs(alg) }})
	}
	if traits.Stateless {
		list = append(list,
			testCase{"nothing to find", (*session).nothingToFind},
			testCase{"nothing to list", (*session).nothingToList},
			testCase{"destroying does nothing", (*session).destroysNothing})
	} else {
		list = append(list,
			testCase{"finds by label", (*session).finds},
			testCase{"finds a key whose creation went unanswered", (*session).lostReply},
			testCase{"lists what carries a label", (*session).lists},
			testCase{"an error ends the listing", (*session).stopsListing},
			testCase{"an unknown reference is not found", (*session).unknownRef},
			testCase{"destroyed keys are gone", (*session).destroys})
	}
	if h.PlantNamed != nil {
		list = append(list, testCase{"adopts a key that somebody else has made", (*session).adopts})
	}
	if h.BreakKey != nil {
		list = append(list, testCase{"a wrong signature is noticed", (*session).brokenKey})
	}
	if h.Stall != nil {
		list = append(list, testCase{"cancelling ends a call that hangs", (*session).stalled})
	}
	return list
}

func (s *session) traits() {
	got, again := s.connect().Traits(), s.connect().Traits()
	if !slices.Equal(got.Algorithms, again.Algorithms) || got.Remote != again.Remote ||
		got.Stateless != again.Stateless || got.ConsistencyWindow != again.ConsistencyWindow {
		s.Errorf("two connections have different traits: %+v and %+v", got, again)
	}
	for _, alg := range s.h.Algorithms {
		if !slices.Contains(got.Algorithms, alg) {
			s.Errorf("%s is to be tested but is not declared", alg)
		}
	}
	if got.Stateless && got.ConsistencyWindow != 0 {
		s.Error("a stateless backend has nothing to wait for, but declares a consistency window")
	}
	if signer.CanAdopt(s.connect().Backend) != (s.h.PlantNamed != nil) {
		s.Error("a harness has PlantNamed if its backend adopts keys, and only then")
	}
	if !got.Stateless && len(s.h.UnknownRef) == 0 {
		s.Error("the harness lacks an UnknownRef")
	}
}
