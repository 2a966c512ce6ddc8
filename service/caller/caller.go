package caller

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/zonemint/zonemint/store"
)

// ErrForbidden: the caller is known but may not do this. The text says what and
// is meant for the caller.
var ErrForbidden = errors.New("forbidden")

// Caller is who makes a request, and the bounds of what it may do. The zero
// Caller may do nothing.
type Caller struct {
	// Name is how the ledger and the audit name the caller: "api-token/<id>".
	Name string
	// Token is what the caller showed.
	Token store.APIToken
}

func fromToken(t store.APIToken) Caller {
	return Caller{Name: "api-token/" + t.ID.String(), Token: t}
}

// TokenID returns the ID of the caller's API token.
func (c Caller) TokenID() uuid.UUID { return c.Token.ID }

// has says whether the caller has one of the roles.
func (c Caller) has(roles []Role) bool {
	return slices.ContainsFunc(c.Token.Roles, func(r string) bool { return slices.Contains(roles, Role(r)) })
}

// MayCall checks a method against the table.
func (c Caller) MayCall(methods map[string][]Role, method string) error {
	roles := methods[method]
	if !c.has(roles) {
		return fmt.Errorf("%w: %s needs one of the roles %v", ErrForbidden, strings.TrimPrefix(method, "/"), roles)
	}
	return nil
}

// Seen returns those of some keysets that are within the caller's bounds.
func (c Caller) Seen(keysets []string) []string {
	if !c.NarrowedToKeysets() {
		return keysets
	}
	return slices.DeleteFunc(slices.Clone(keysets), func(name string) bool { return !within(c.Token.Keysets, name) })
}

// MaySee checks that a keyset is within the caller's bounds.
func (c Caller) MaySee(keyset string) error {
	if !within(c.Token.Keysets, keyset) {
		return fmt.Errorf("%w: this API token is not for keyset %q", ErrForbidden, keyset)
	}
	return nil
}

// MayReach checks that a subject is within the caller's zones.
func (c Caller) MayReach(subject string) error {
	if len(c.Token.Zones) != 0 && !slices.ContainsFunc(c.Token.Zones, func(p string) bool { return matches(p, subject) }) {
		return fmt.Errorf("%w: this API token is not for zone %q", ErrForbidden, subject)
	}
	return nil
}

// MayReadReasons says whether the caller may read who revoked a token and why,
// which may be about any zone. Whoever only checks tokens need not know.
func (c Caller) MayReadReasons() bool {
	return c.has([]Role{Admin, Revoker, Auditor}) && !c.NarrowedToZones()
}

// NarrowedToZones says whether the caller may reach some zones only. What has no
// zone, or one that is not known, is then out of its reach.
func (c Caller) NarrowedToZones() bool { return len(c.Token.Zones) != 0 }

// NarrowedToZoneTokens says whether tokens of other profiles are out of the caller's
// reach: it is narrowed to zones or to the scopes of their tokens.
func (c Caller) NarrowedToZoneTokens() bool { return c.NarrowedToZones() || len(c.Token.Scopes) != 0 }

// NarrowedToKeysets says whether the caller may see some keysets only.
func (c Caller) NarrowedToKeysets() bool { return len(c.Token.Keysets) != 0 }

// MayManage checks that a keyset is within the caller's bounds, and that the caller
// is not narrowed to some of its tokens: whoever changes a keyset or its keys
// reaches all of them.
func (c Caller) MayManage(keyset string) error {
	if err := c.MaySee(keyset); err != nil {
		return err
	}
	if t := c.Token; c.narrowed() || t.MaxValidFor != 0 {
		return fmt.Errorf("%w: this API token is narrowed to some tokens of keyset %q and may not change its keys", ErrForbidden, keyset)
	}
	return nil
}

// MayWeaken checks that the caller is an administrator, for what takes a safeguard
// away from a keyset: letting it issue tokens for administrators of control planes,
// keeping keys less safely, signing with a key of unknown origin.
func (c Caller) MayWeaken(by string) error {
	if !c.has([]Role{Admin}) {
		return fmt.Errorf("%w: %s needs the role %s", ErrForbidden, by, Admin)
	}
	return nil
}

// Unbounded checks that the caller is not narrowed to keysets, zones or
// scopes. Acts that reach beyond a single keyset need it.
func (c Caller) Unbounded() error {
	t := c.Token
	if len(t.Keysets) != 0 || c.narrowed() || t.MaxValidFor != 0 {
		return fmt.Errorf("%w: this needs an API token that is not narrowed", ErrForbidden)
	}
	return nil
}

// MayIssue checks the keyset and the lifetime of a token against the caller's
// bounds. What the token is for has a check of its own.
func (c Caller) MayIssue(keyset string, validFor time.Duration) error {
	if err := c.MaySee(keyset); err != nil {
		return err
	}
	if most := c.Token.MaxValidFor; most != 0 && validFor > most {
		return fmt.Errorf("%w: this API token issues tokens for %s at the most, not for %s", ErrForbidden, most, validFor)
	}
	return nil
}

// MayIssueZone checks what a zone token is for against the caller's bounds.
func (c Caller) MayIssueZone(zone string, scopes []string) error {
	if len(c.Token.Dataplanes) != 0 {
		return c.MayIssueAny()
	}
	if err := c.MayReach(zone); err != nil {
		return err
	}
	for _, s := range scopes {
		if !within(c.Token.Scopes, s) {
			return fmt.Errorf("%w: this API token is not for scope %q", ErrForbidden, s)
		}
	}
	return nil
}

// narrowed says whether the caller is for some tokens of its keysets only.
func (c Caller) narrowed() bool {
	return len(c.Token.Zones) != 0 || len(c.Token.Scopes) != 0 || len(c.Token.Dataplanes) != 0
}

// MayIssueDataplane checks the name of a dataplane, empty if the token is for any
// that the rest of it fits.
func (c Caller) MayIssueDataplane(name string) error {
	switch list := c.Token.Dataplanes; {
	case len(list) == 0:
		return c.MayIssueAny()
	case name == "":
		return fmt.Errorf("%w: this API token is for some dataplanes only, and the token names none", ErrForbidden)
	case !slices.ContainsFunc(list, func(p string) bool { return matches(p, name) }):
		return fmt.Errorf("%w: this API token is not for dataplane %q", ErrForbidden, name)
	}
	return nil
}

// MayIssueAny checks that the caller is not narrowed to tokens of another kind.
func (c Caller) MayIssueAny() error {
	if c.narrowed() {
		return fmt.Errorf("%w: this API token is narrowed to some zone tokens or dataplane tokens, which this is none of", ErrForbidden)
	}
	return nil
}

// MayGrant checks that a new API token is within the caller's own bounds.
// Without it, a narrowed administrator could make itself a wider token.
func (c Caller) MayGrant(t store.APIToken) error {
	own := c.Token
	switch {
	case !covers(own.Keysets, t.Keysets, func(p, v string) bool { return p == v }):
		return fmt.Errorf("%w: the new token would reach keysets that yours does not", ErrForbidden)
	case !covers(own.Zones, t.Zones, covered):
		return fmt.Errorf("%w: the new token would reach zones that yours does not", ErrForbidden)
	case !covers(own.Scopes, t.Scopes, func(p, v string) bool { return p == v }):
		return fmt.Errorf("%w: the new token would reach scopes that yours does not", ErrForbidden)
	case !covers(own.Dataplanes, t.Dataplanes, covered):
		return fmt.Errorf("%w: the new token would reach dataplanes that yours does not", ErrForbidden)
	case len(own.Dataplanes) == 0 && len(t.Dataplanes) != 0 && c.narrowed():
		return fmt.Errorf("%w: the new token would be for dataplanes, and yours is for some zone tokens only", ErrForbidden)
	case own.MaxValidFor != 0 && (t.MaxValidFor == 0 || t.MaxValidFor > own.MaxValidFor):
		return fmt.Errorf("%w: the new token could issue for longer than yours", ErrForbidden)
	}
	return nil
}

// within says whether v is allowed by a list in which none means all.
func within(list []string, v string) bool { return len(list) == 0 || slices.Contains(list, v) }

// matches says whether a zone matches an exact name or a prefix with a "*".
func matches(pattern, zone string) bool {
	if p, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(zone, p)
	}
	return pattern == zone
}

// covered says whether every zone that inner matches is matched by outer.
func covered(outer, inner string) bool {
	if p, ok := strings.CutSuffix(inner, "*"); ok {
		o, wide := strings.CutSuffix(outer, "*")
		return wide && strings.HasPrefix(p, o)
	}
	return matches(outer, inner)
}

// covers says whether each of inner is allowed by one of outer, where an empty
// list is everything.
func covers(outer, inner []string, allows func(outer, inner string) bool) bool {
	if len(outer) == 0 {
		return true
	}
	if len(inner) == 0 {
		return false
	}
	for _, v := range inner {
		if !slices.ContainsFunc(outer, func(p string) bool { return allows(p, v) }) {
			return false
		}
	}
	return true
}
