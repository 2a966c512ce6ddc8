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

	"connectrpc.com/connect"
)

// back is how soon after Vault's return tokens have to be issued again.
const back = 2 * time.Second

// comesBack wants a token soon, and returns it.
func comesBack(t *testing.T, c client) (k issued) {
	t.Helper()
	took := eventually(t, back, "issuing works again", func() bool {
		var err error
		k, err = c.issue(t.Context(), "after", time.Second)
		return err == nil
	})
	t.Logf("issuing works %s after Vault is back", took.Round(time.Millisecond))
	return k
}

// vaultKeys returns the names of zonemint's keys in the engine.
func (v *vault) vaultKeys(t *testing.T) (names []string) {
	t.Helper()
	for _, name := range v.data(t, "GET", "transit/keys?list=true", nil)["keys"].([]any) {
		names = append(names, name.(string))
	}
	return names
}

// TestVaultGoesAway seals Vault, and kills it, under a server that keeps its keys
// there. Issuing stops and says so, keys are served all along, and nothing is
// restarted but Vault.
func TestVaultGoesAway(t *testing.T) {
	v := startVault(t)
	db := newSQLite(t, t.TempDir())
	in := installAdmin(t, db, settings{more: v.admit(t, "http://"+v.addr)})
	s := in.start(t)
	c := s.overConnect(t, in.admin)
	tokens := []issued{c.mustIssue(t, "before")}
	keys := s.keys(t, "zone")

	for name, outage := range map[string]struct{ begin, end func() }{
		"sealed": {func() { v.must(t, "PUT", "sys/seal", nil) }, func() { v.unseal(t) }},
		"killed": {func() { v.kill(t) }, func() { v.start(t); v.unseal(t) }},
	} {
		outage.begin()
		wantRefused(t, c, 3*time.Second, connect.CodeUnavailable)
		if status := s.live(t); status != http.StatusOK {
			t.Errorf("%s: the server counts as dead: status %d", name, status)
		}
		if doc := s.jwks(t, "zone"); doc.status != http.StatusOK || doc.maxAge <= 0 {
			t.Errorf("%s: keys are served with status %d and max-age %s", name, doc.status, doc.maxAge)
		}
		outage.end()
		tokens = append(tokens, comesBack(t, c))
	}
	wantValid(t, keys, tokens...)
	s.stop(t)
	db.wantRows(t, tokens)
	in.verifyLedger(t)
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
