// Package profile knows the kinds of tokens: what can be asked for, what is wrong
// with what was asked for, and which claims come of it. Everything else about a
// token, its key, its times, its row in the ledger, is the same for all kinds.
package profile

import (
	"fmt"

	"github.com/zonemint/zonemint/service/caller"
	"github.com/zonemint/zonemint/store"
	"github.com/zonemint/zonemint/token"
)

// Wish is a token that somebody asks for, without what the service adds.
type Wish interface {
	// Profile returns the profile that the keyset must have.
	Profile() store.Profile
	// Keyset returns the name of the keyset for a wish that names none, given the
	// names of those that are for a mesh and that the caller may see, sorted. There
	// may be none of that name.
	Keyset(ofMesh func(mesh string) []string) string
	// Faults returns everything that is wrong with the wish, whatever the keyset.
	Faults() []Fault
	// Fits returns what is wrong with it for this keyset.
	Fits(ks store.Keyset) []Fault
	// Within checks it against the bounds of the caller.
	Within(who caller.Caller) error
	// Subject and Scopes are what the ledger notes.
	Subject() string
	Scopes() []string
	// AppendSigningInput appends the encoded header and payload.
	AppendSigningInput(dst []byte, header string, r token.Registered) []byte
}

// Fault is one thing that is wrong with a wish. Both texts are for the caller, and
// so do not repeat more of what the caller wrote than is needed.
type Fault struct {
	Field  string // as in Kuma's API: "zone", "scope", "name" …
	Reason string
}

const empty = "cannot be empty"

// maxClaims bounds what a wish says, in bytes of the token's JSON. With it a token
// stays well below [token.MaxTokenSize], and fits into headers and the ledger.
const maxClaims = 8 << 10

// lengthFaults says that a field makes the claims too long.
func lengthFaults(field string, claims interface{ AppendJSON(dst []byte) []byte }) []Fault {
	if n := len(claims.AppendJSON(nil)); n > maxClaims {
		return []Fault{{field, fmt.Sprintf("makes claims of %d bytes, more than the %d that a token can have", n, maxClaims)}}
	}
	return nil
}

// clip shortens a value for a message.
func clip(s string) string {
	const most = 32
	if len(s) > most {
		return toValid(s[:most]) + "…"
	}
	return toValid(s)
}
