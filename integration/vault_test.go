package integration

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// vaultKeys returns the names of zonemint's keys in the engine.
func (v *vault) vaultKeys(t *testing.T) (names []string) {
	t.Helper()
	for _, name := range v.data(t, "GET", "transit/keys?list=true", nil)["keys"].([]any) {
		names = append(names, name.(string))
	}
	return names
}

// TestVaultKeysRotatedByOthers rotates every transit key by hand. Tokens go on
// verifying with the keys that were served before.
func TestVaultKeysRotatedByOthers(t *testing.T) {
	v := startVault(t)
	in := installAdmin(t, newSQLite(t, t.TempDir()), settings{
		keysets: []keyset{{"zone", "zone", "RS256"}}, more: v.admit(t, "http://"+v.addr),
	})
	s := in.start(t)
	c := s.overConnect(t, in.admin)
	c.mustIssue(t, "before")
	keys := s.keys(t, "zone")
	for _, name := range v.vaultKeys(t) {
		v.must(t, "POST", "transit/keys/"+name+"/rotate", nil)
	}
	wantValid(t, keys, c.mustIssue(t, "after"), c.mustIssue(t, "again"))
}

// TestVaultIsAskedOnce counts what is asked of Vault while tokens are issued.
func TestVaultIsAskedOnce(t *testing.T) {
	v := startVault(t)
	var mu sync.Mutex
	asked := map[string]int{}
	target := &url.URL{Scheme: "http", Host: v.addr}
	forward := httputil.NewSingleHostReverseProxy(target)
	counting := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		asked[r.Method+" "+strings.SplitN(strings.TrimPrefix(r.URL.Path, "/v1/"), "zonemint-", 2)[0]]++
		mu.Unlock()
		forward.ServeHTTP(w, r)
	}))
	t.Cleanup(counting.Close)
	in := installAdmin(t, newSQLite(t, t.TempDir()), settings{more: v.admit(t, counting.URL)})
	s := in.start(t)
	c := s.overConnect(t, in.admin)
	c.mustIssue(t, "first")
	eventually(t, 10*time.Second, "the successor of the key is published", func() bool {
		return strings.Count(string(s.jwks(t, "zone").body), `"kid"`) == 2
	})

	const tokens = 50
	mu.Lock()
	clear(asked)
	mu.Unlock()
	for i := range tokens {
		c.mustIssue(t, fmt.Sprint("zone-", i))
	}
	mu.Lock()
	defer mu.Unlock()
	if len(asked) != 1 || asked["POST transit/sign/"] != tokens {
		t.Errorf("for %d tokens Vault was asked %v", tokens, asked)
	}
}
