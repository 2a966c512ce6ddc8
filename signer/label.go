package signer

import (
	"crypto/rand"
	"strings"
)

// labelPrefix and labelRandom, the least number of characters after it, are
// how labels look. Texts of crypto/rand may become longer, not shorter.
const (
	labelPrefix = "zonemint-"
	labelRandom = 26
)

// NewLabel returns a fresh label for a [Spec]: "zonemint-" and 26 lower-case
// letters and digits, which hold 128 random bits or more. Every backend can
// keep such a text as a tag, a name or an identifier, and an operator who
// finds one in a console sees where it comes from.
func NewLabel() string { return labelPrefix + strings.ToLower(rand.Text()) }

// IsLabel says whether text looks like what NewLabel returns. It tells the keys
// of zonemint, of this instance or of another one, from those of everybody
// else, down to what an operator may have named "zonemint-backup".
func IsLabel(text string) bool {
	random, ok := strings.CutPrefix(text, labelPrefix)
	return ok && len(random) >= labelRandom && strings.Trim(random, "abcdefghijklmnopqrstuvwxyz0123456789") == ""
}
