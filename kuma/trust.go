package kuma

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/zonemint/zonemint/token"
)

// Keyset is what control planes have to know of a keyset of zonemint.
type Keyset struct {
	Name    string
	Profile token.Profile
	Mesh    string // that dataplane tokens are for
	Keys    []Key
	Revoked List
}

// Key is a key of a keyset, by which tokens are verified.
type Key struct {
	ID        string
	Serial    int
	State     string
	Algorithm string // of the tokens, such as "RS256" or "RS256-4096"
	Imported  bool   // it is another issuer's
	PEM       string
}

// isOwn says whether the key is one that was taken over from a control plane,
// which has it in its secrets.
func (k Key) isOwn() bool { return k.Imported && errors.Is(checkKeyID(k.ID), ErrOwnKeyID) }

// place names where a control plane looks for the keys of a keyset. It believes
// each key there for every token of that place.
func (k Keyset) place() string {
	if k.Profile == token.ProfileDataplane {
		return fmt.Sprintf("dataplane tokens of mesh %q", k.Mesh)
	}
	return string(k.Profile) + " tokens"
}

// Trust is what control planes are given: keys and revocations of keysets, as they
// were at one time.
type Trust struct {
	At      time.Time
	Keysets []Keyset
	// Others are keysets that are not given out this time. No key of theirs may be
	// among those that are.
	Others []Keyset
}

// RefusedError says why nothing is given out: every fault, and what to do about
// it.
type RefusedError struct{ Faults []string }

func (e *RefusedError) Error() string {
	return "nothing was exported, because control planes would choke on it:\n- " + strings.Join(e.Faults, "\n- ")
}

// placedKey is a key in its place.
type placedKey struct {
	PublicKey
	keyset *Keyset
	from   Key
}

// selection is what is chosen out of a Trust, and what is to be said of it.
type selection struct {
	keys   []placedKey
	notes  []string
	faults []string
}

func (s *selection) note(format string, args ...any) {
	s.notes = append(s.notes, fmt.Sprintf(format, args...))
}

func (s *selection) fault(format string, args ...any) {
	s.faults = append(s.faults, fmt.Sprintf(format, args...))
}

// err returns all faults as one error.
func (s *selection) err() error {
	if len(s.faults) == 0 {
		return nil
	}
	return &RefusedError{s.faults}
}

// choose takes the keys of the keysets, and of keys that were taken over from a
// control plane those that own accepts.
func (t Trust) choose(keysets []Keyset, own func(*selection, Keyset, Key) bool) *selection {
	s := &selection{}
	for i := range keysets {
		s.takeKeyset(&keysets[i], own)
	}
	s.checkIDs()
	s.checkPlaces(t)
	return s
}

func (s *selection) takeKeyset(ks *Keyset, own func(*selection, Keyset, Key) bool) {
	if ks.Profile == token.ProfileDataplane && ks.Mesh == "" {
		s.fault("keyset %q has no mesh, and its keys would be trusted in every mesh: leave it out with --keyset", ks.Name)
	}
	taken := len(s.keys)
	faults := len(s.faults)
	for _, k := range ks.Keys {
		if k.isOwn() && !own(s, *ks, k) {
			continue
		}
		public, err := publicKeyOf(k)
		if err != nil {
			s.fault("keyset %q: %v", ks.Name, err)
			continue
		}
		s.keys = append(s.keys, placedKey{public, ks, k})
	}
	if len(s.keys) == taken && len(s.faults) == faults {
		s.fault("keyset %q has no key to verify its tokens with: see \"zonemint key list --keyset %s\"", ks.Name, ks.Name)
	}
}

// publicKeyOf checks a key as control planes will use it.
func publicKeyOf(k Key) (PublicKey, error) {
	if name, _, _ := strings.Cut(k.Algorithm, "-"); name != "RS256" {
		return PublicKey{}, fmt.Errorf("key %q is for %s, and control planes verify RS256 only: leave the keyset out with --keyset, or rotate it to RS256", k.ID, cmp.Or(name, "no known algorithm"))
	}
	if k.isOwn() {
		return parsePublicKey(k.ID, k.PEM)
	}
	return ParsePublicKey(k.ID, k.PEM)
}

// checkIDs refuses two keys with one ID in one place: a control plane would take
// the last one and refuse the tokens of the other.
func (s *selection) checkIDs() {
	first := map[[2]string]*Keyset{}
	for _, k := range s.keys {
		at := [2]string{k.keyset.place(), k.ID}
		if other, taken := first[at]; taken {
			s.fault("key ID %q is there twice for %s, in keysets %q and %q: export one of them only", k.ID, at[0], other.Name, k.keyset.Name)
			continue
		}
		first[at] = k.keyset
	}
}

// checkPlaces refuses keys that are trusted for two kinds of tokens. Tokens of
// Kuma do not say what they are: what a key signs is good for everything that it
// is trusted for.
func (s *selection) checkPlaces(t Trust) {
	at := map[string]*Keyset{} // by the key itself
	for _, list := range [][]Keyset{t.Keysets, t.Others} {
		for i := range list {
			for _, k := range list[i].Keys {
				public, err := parsePublicKey(k.ID, k.PEM)
				if err != nil {
					continue // it was reported, or is not given out
				}
				other, known := at[public.PEM]
				if known && other.place() != list[i].place() {
					s.fault("key %q of keyset %q is a key of keyset %q too: what it signs for %s would be good as %s. Retire it in one of them (zonemint key retire)",
						k.ID, list[i].Name, other.Name, list[i].place(), other.place())
				}
				at[public.PEM] = &list[i]
			}
		}
	}
}

// header returns the comment of a document: when it was made, and of what.
func (t Trust) header(keys []placedKey, lists []Keyset) []string {
	lines := []string{"Made by zonemint at " + t.At.UTC().Format(time.RFC3339) + " of:"}
	var names []string
	of := map[string][]string{}
	for _, k := range keys {
		if !slices.Contains(names, k.keyset.Name) {
			names = append(names, k.keyset.Name)
		}
		of[k.keyset.Name] = append(of[k.keyset.Name], fmt.Sprintf("%s (serial %d, %s)", k.ID, k.from.Serial, k.from.State))
	}
	for _, name := range names {
		lines = append(lines, fmt.Sprintf("  keyset %s: %s", name, strings.Join(of[name], ", ")))
	}
	for _, ks := range lists {
		lines = append(lines, fmt.Sprintf("  keyset %s: revocations, %d", ks.Name, len(ks.Revoked)))
	}
	return lines
}
