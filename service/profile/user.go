package profile

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/zonemint/zonemint/service/caller"
	"github.com/zonemint/zonemint/store"
	"github.com/zonemint/zonemint/token"
)

// User asks for a user token.
type User struct {
	Name   string
	Groups []string
}

// Profile implements [Wish].
func (User) Profile() store.Profile { return store.ProfileUser }

// Keyset implements [Wish].
func (User) Keyset(func(string) []string) string { return "user" }

const maxGroups = 64

// Faults implements [Wish].
func (u User) Faults() []Fault {
	var faults []Fault
	if reason := principalFault(u.Name); reason != "" {
		faults = append(faults, Fault{"name", reason})
	}
	if len(u.Groups) > maxGroups {
		return append(faults, Fault{"groups", fmt.Sprintf("has more than %d entries", maxGroups)})
	}
	for i, g := range u.Groups {
		switch reason := principalFault(g); {
		case reason != "":
			faults = append(faults, Fault{fmt.Sprintf("groups[%d]", i), reason})
		case slices.Contains(u.Groups[:i], g):
			faults = append(faults, Fault{fmt.Sprintf("groups[%d]", i), "is there twice"})
		}
	}
	return append(faults, lengthFaults("groups", token.UserClaims{Groups: u.Groups})...)
}

// principalFault says what is wrong with the name of a user or group. Names come
// from directories, so nearly everything that can be seen is allowed.
func principalFault(s string) string {
	switch {
	case s == "":
		return empty
	case len(s) > maxName:
		return fmt.Sprintf("is longer than %d bytes", maxName)
	case strings.ContainsFunc(s, unseen):
		return "has characters that cannot be seen"
	case strings.TrimSpace(s) != s:
		return "begins or ends with a space"
	}
	return ""
}

// unseen also says so of what a reader of JSON puts in the place of bytes that are
// not UTF-8: two names could become one.
func unseen(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) }

// systemPrefix begins the names that control planes keep for themselves; the group
// mesh-system:admin may do everything.
const systemPrefix = "mesh-system:"

func isSystem(s string) bool {
	return len(s) >= len(systemPrefix) && strings.EqualFold(s[:len(systemPrefix)], systemPrefix)
}

// Fits implements [Wish].
func (u User) Fits(ks store.Keyset) []Fault {
	if ks.Policy.AllowMeshSystem {
		return nil
	}
	reason := fmt.Sprintf("begins with %q, which keyset %q does not allow", systemPrefix, ks.Name)
	var faults []Fault
	if isSystem(u.Name) {
		faults = append(faults, Fault{"name", reason})
	}
	for i, g := range u.Groups {
		if isSystem(g) {
			faults = append(faults, Fault{fmt.Sprintf("groups[%d]", i), reason})
		}
	}
	return faults
}

// Within implements [Wish].
func (User) Within(who caller.Caller) error { return who.MayIssueAny() }

// Subject implements [Wish].
func (u User) Subject() string { return u.Name }

// Scopes implements [Wish].
func (u User) Scopes() []string { return u.Groups }

// AppendSigningInput implements [Wish].
func (u User) AppendSigningInput(dst []byte, header string, r token.Registered) []byte {
	return token.AppendSigningInput(dst, header, token.UserClaims{Name: u.Name, Groups: u.Groups, Registered: r})
}
