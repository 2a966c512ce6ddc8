package caller_test

import (
	"errors"
	"testing"
	"time"

	"github.com/zonemint/zonemint/service/caller"
	"github.com/zonemint/zonemint/store"
)

// What a bound keeps a caller from is said once for issuing, and once for looking.
func TestLegacyBounds(t *testing.T) {
	for name, tc := range map[string]struct {
		token       store.APIToken
		issues, use bool
	}{
		"none":              {store.APIToken{}, true, true},
		"the zone":          {store.APIToken{Zones: []string{"we*"}}, true, true},
		"another zone":      {store.APIToken{Zones: []string{"east"}}, false, true},
		"the scope":         {store.APIToken{Scopes: []string{"cp"}}, true, true},
		"another scope":     {store.APIToken{Scopes: []string{"ingress", "egress"}}, false, true},
		"a lifetime":        {store.APIToken{MaxValidFor: 876000 * time.Hour}, false, true},
		"dataplanes":        {store.APIToken{Dataplanes: []string{"*"}}, false, true},
		"keysets":           {store.APIToken{Keysets: []string{"zone"}}, false, false},
		"zones and keysets": {store.APIToken{Zones: []string{"west"}, Keysets: []string{"legacy"}}, false, false},
	} {
		who := caller.Caller{Token: tc.token}
		if err := who.MayIssueLegacy("west", "cp"); (err == nil) != tc.issues || err != nil && !errors.Is(err, caller.ErrForbidden) {
			t.Errorf("%s: issues: %v, want %t", name, err, tc.issues)
		}
		if err := who.MayUseLegacy(); (err == nil) != tc.use || err != nil && !errors.Is(err, caller.ErrForbidden) {
			t.Errorf("%s: uses: %v, want %t", name, err, tc.use)
		}
	}
}
