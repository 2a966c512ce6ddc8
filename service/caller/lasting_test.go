package caller_test

import (
	"testing"

	"github.com/google/uuid"

	"github.com/zonemint/zonemint/service/caller"
	"github.com/zonemint/zonemint/store"
)

func TestLastingIsCounted(t *testing.T) {
	var a caller.Authenticator
	one, other := caller.Caller{Token: store.APIToken{ID: uuid.New()}}, caller.Caller{Token: store.APIToken{ID: uuid.New()}}
	begin := func(who caller.Caller, kind string, want bool) func() {
		t.Helper()
		end, ok := a.Begin(who, kind, 2)
		if ok != want {
			t.Errorf("%s: %t", kind, ok)
		}
		return end
	}
	end := begin(one, "list", true)
	begin(one, "list", true)
	begin(one, "list", false)
	begin(one, "stream", true)
	begin(other, "list", true)
	end()
	end = begin(one, "list", true)
	begin(one, "list", false)
	end()
	begin(one, "list", true)
}
