package signer

import (
	"crypto/rand"
	"strings"
)

// NewLabel returns a fresh label for a [Spec]: "zonemint-" and 26 lower-case
// letters and digits, which hold 128 random bits or more. Every backend can
// keep such a text as a tag, a name or an identifier, and an operator who
// finds one in a console sees where it comes from.
func NewLabel() string { return "zonemint-" + strings.ToLower(rand.Text()) }
