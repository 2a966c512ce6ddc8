package profile

import (
	"github.com/zonemint/zonemint/service/caller"
	"github.com/zonemint/zonemint/store"
	"github.com/zonemint/zonemint/token"
)

// Zone asks for a zone token.
type Zone struct {
	Zone  string
	Scope []string // nil: the default scopes
}

// Profile implements [Wish].
func (Zone) Profile() store.Profile { return store.ProfileZone }

// Keyset implements [Wish].
func (Zone) Keyset(func(string) []string) string { return "zone" }

// maxScopes bounds how many faults an answer can list. There are three scopes.
const maxScopes = 16

// Faults implements [Wish]. Kuma issues tokens for any zone name and scope.
func (z Zone) Faults() []Fault {
	var faults []Fault
	switch {
	case z.Zone == "":
		faults = append(faults, Fault{"zone", empty})
	case !token.ValidZoneName(z.Zone):
		faults = append(faults, Fault{"zone", "must be 1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit"})
	}
	switch {
	case z.Scope != nil && len(z.Scope) == 0:
		faults = append(faults, Fault{"scope", empty})
	case len(z.Scope) > maxScopes:
		return append(faults, Fault{"scope", "has too many entries"})
	}
	seen := map[string]bool{}
	for _, s := range z.Scope {
		switch {
		case !token.ValidScope(s):
			faults = append(faults, Fault{"scope", "unknown scope \"" + clip(s) + "\", want cp, ingress or egress"})
		case seen[s]:
			faults = append(faults, Fault{"scope", "has " + s + " twice"})
		}
		seen[s] = true
	}
	return faults
}

// Fits implements [Wish].
func (Zone) Fits(store.Keyset) []Fault { return nil }

// Within implements [Wish].
func (z Zone) Within(who caller.Caller) error { return who.MayIssueZone(z.Zone, z.Scopes()) }

// Subject implements [Wish].
func (z Zone) Subject() string { return z.Zone }

// Scopes implements [Wish].
func (z Zone) Scopes() []string {
	if len(z.Scope) == 0 {
		return token.DefaultScopes()
	}
	return z.Scope
}

// AppendSigningInput implements [Wish].
func (z Zone) AppendSigningInput(dst []byte, header string, r token.Registered) []byte {
	return token.AppendSigningInput(dst, header, token.ZoneClaims{Zone: z.Zone, Scope: z.Scopes(), Registered: r})
}
