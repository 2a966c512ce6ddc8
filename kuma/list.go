package kuma

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
)

// MaxListSize is how large a list of revoked token IDs may be, in bytes. It is what
// a Secret of Kubernetes holds, and lists travel to every zone, some of which are
// on Kubernetes.
const MaxListSize = 1 << 20

// List is a list of revoked token IDs, in the order of the secret and without
// repetitions.
type List []string

// ParseList reads a list as leniently as it may have been written by hand: a
// space or a newline between two IDs, which makes a control plane overlook the
// revocation without a word, separates them just as a comma does, and so does any
// control character. What it returns can be encoded, if it is not too large.
func ParseList(text string) List {
	var l List
	seen := map[string]bool{}
	for _, id := range strings.FieldsFunc(text, separates) {
		if !seen[id] {
			seen[id] = true
			l = append(l, id)
		}
	}
	return l
}

// Encode returns the list as control planes read it: IDs and commas, and nothing
// else. It refuses IDs that would be taken for something else, and a list that is
// too large.
func (l List) Encode() (string, error) {
	if i := slices.IndexFunc(l, func(id string) bool { return !validID(id) }); i >= 0 {
		return "", fmt.Errorf("token ID %.64q cannot be in a list: it is empty, or has a comma, a space or a control character", l[i])
	}
	text := strings.Join(l, ",")
	if len(text) > MaxListSize {
		return "", &TooLargeError{Entries: len(l), Size: len(text)}
	}
	return text, nil
}

func validID(id string) bool {
	return id != "" && !strings.ContainsFunc(id, separates)
}

// separates says whether no ID has that character.
func separates(r rune) bool { return r == ',' || unicode.IsSpace(r) || unicode.IsControl(r) }

// TooLargeError says that a list does not fit into a secret. Nothing of it was
// written: a list that was cut would let revoked tokens in again.
type TooLargeError struct{ Entries, Size int }

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("%d revoked token IDs take %d bytes, and a secret holds %d. Distrust the key that signed most of them "+
		"(zonemint key distrust), which revokes them all at once, and give out tokens with shorter lifetimes, so that "+
		"entries leave the list sooner", e.Entries, e.Size, MaxListSize)
}
