package token_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zonemint/zonemint/token"
)

// The old HS256 tokens of control planes are no tokens of any profile, and no
// algorithm here has their name.
func TestOldTokensAreRefused(t *testing.T) {
	files, err := filepath.Glob("../service/legacy/testdata/*.token")
	if err != nil || len(files) != 2 {
		t.Fatalf("golden tokens: %q, %v", files, err)
	}
	keys := testIssuers().keySet(t)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		raw := strings.TrimSpace(string(text))
		refusesOld[token.ZoneClaims](t, keys, raw)
		refusesOld[token.DataplaneClaims](t, keys, raw)
		refusesOld[token.UserClaims](t, keys, raw)
		if h, err := token.UnverifiedHeader(raw); !errors.Is(err, token.ErrMalformed) {
			t.Errorf("%s: the header is %+v, %v", file, h, err)
		}
	}
	for _, alg := range token.Algorithms() {
		if strings.HasPrefix(alg, "HS") {
			t.Errorf("there is an algorithm %s", alg)
		}
	}
	for _, alg := range []string{"HS256", "HS384", "HS512"} {
		if _, err := token.NewKey("k", alg, []byte("the secret of another control plane, long enough")); err == nil {
			t.Errorf("a secret is a key for %s", alg)
		}
	}
	if set, err := token.ParseKeySet([]byte(`{"keys":[{"kty":"oct","alg":"HS256","kid":"k","use":"sig","k":"dGhlIHNlY3JldCBvZiBhbm90aGVyIGNvbnRyb2wgcGxhbmU"}]}`)); err == nil && len(set.Keys()) > 0 {
		t.Error("a secret is in a JWK set")
	}
}

func refusesOld[C token.Claims](t *testing.T, keys *token.KeySet, raw string) {
	t.Helper()
	v, err := token.NewVerifier[C](keys, token.Options{Now: fixed(testTime)})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := v.Verify(t.Context(), raw); !errors.Is(err, token.ErrMalformed) {
		t.Errorf("an old token is %+v, %v", got, err)
	}
}
