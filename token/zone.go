package token

import (
	"errors"
	"fmt"
	"slices"
)

// The scopes of zone tokens: what a zone may use its token for.
const (
	ScopeCP      = "cp"      // connect its control plane to the global one
	ScopeIngress = "ingress" // run zone ingresses
	ScopeEgress  = "egress"  // run zone egresses
)

// DefaultScopes returns the scopes of a zone token for which none were asked.
func DefaultScopes() []string { return []string{ScopeIngress, ScopeEgress} }

// ValidScope says whether s is one of the scopes.
func ValidScope(s string) bool { return s == ScopeCP || s == ScopeIngress || s == ScopeEgress }

// ValidZoneName says whether s is fit to name a zone: a label as in RFC 1123
// section 2.1, in lower case. A [Verifier] wants a name but does not insist on
// this form, because issuers before zonemint did not.
func ValidZoneName(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for _, c := range []byte(s) {
		if c != '-' && (c < '0' || c > '9') && (c < 'a' || c > 'z') {
			return false
		}
	}
	return true
}

// ZoneClaims are the claims of a zone token: the bearer acts for Zone, within
// Scope.
type ZoneClaims struct {
	Zone  string
	Scope []string
	Registered
}

// Profile returns [ProfileZone].
func (ZoneClaims) Profile() Profile { return ProfileZone }

// Subject returns the zone.
func (c ZoneClaims) Subject() string { return c.Zone }

// AppendJSON appends the claims as a JSON object, in the order of Kuma's own
// tokens. It does not check them.
func (c ZoneClaims) AppendJSON(dst []byte) []byte {
	dst = appendString(append(dst, `{"Zone":`...), c.Zone)
	dst = appendStrings(append(dst, `,"Scope":`...), c.Scope)
	return append(c.appendMembers(dst), '}')
}

// MarshalJSON returns what AppendJSON appends.
func (c ZoneClaims) MarshalJSON() ([]byte, error) { return c.AppendJSON(nil), nil }

func (c *ZoneClaims) read(name string, value []byte) (err error) {
	switch name {
	case "Zone":
		c.Zone, err = readString(value)
	case "Scope":
		c.Scope, err = readStrings(value)
	default:
		err = c.Registered.read(name, value)
	}
	return err
}

func (c *ZoneClaims) check() error {
	if c.Zone == "" {
		return errors.New("Zone is missing or empty")
	}
	if len(c.Scope) == 0 {
		return errors.New("Scope is missing or empty")
	}
	for _, s := range c.Scope {
		if !ValidScope(s) {
			return fmt.Errorf("unknown scope %.20q", s)
		}
	}
	return nil
}

// RequireZone wants the token to be for that zone.
func RequireZone(name string) Requirement[ZoneClaims] {
	return func(c ZoneClaims) error {
		if name == "" || c.Zone != name {
			return fmt.Errorf("it is for zone %.64q, not %.64q", c.Zone, name)
		}
		return nil
	}
}

// RequireScopes wants the token to have all of these scopes.
func RequireScopes(scopes ...string) Requirement[ZoneClaims] {
	return func(c ZoneClaims) error {
		for _, s := range scopes {
			if !slices.Contains(c.Scope, s) {
				return fmt.Errorf("it lacks the scope %.20q", s)
			}
		}
		return nil
	}
}
