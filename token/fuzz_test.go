package token_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/zonemint/zonemint/token"
)

// Whatever is made out of a good token, it is refused unless it is that token. The
// private keys of the golden vectors are gone, so nothing else can be good. (One
// could be computed from an ECDSA signature, but not be found by chance.)
func FuzzVerify(f *testing.F) {
	keys, list := goldenVectors(f)
	good := map[string]bool{}
	for _, c := range list {
		f.Add(c.Token)
		good[c.Token] = c.Reason == "ok"
	}
	v := zoneVerifier(f, keys, token.Options{})
	f.Fuzz(func(t *testing.T, raw string) {
		got, err := v.Verify(t.Context(), raw)
		if (err == nil) != good[raw] {
			t.Fatalf("verified %+v, error %v", got, err)
		}
		if err != nil && (token.Reason(err) == "other" || len(err.Error()) > 400) {
			t.Fatalf("unfit error: %v", err)
		}
	})
}

// FuzzClaims signs what it is given, to reach the part of a verifier that only
// sees what its issuer wrote.
func FuzzClaims(f *testing.F) {
	_, list := goldenVectors(f)
	for _, c := range list {
		if parts := strings.Split(c.Token, "."); len(parts) == 3 {
			if p, err := token.DecodeForTest(parts[1]); err == nil {
				f.Add(p)
			}
		}
	}
	is := testIssuers()["EdDSA"]
	v := zoneVerifier(f, testIssuers().keySet(f), token.Options{})
	f.Fuzz(func(t *testing.T, payload []byte) {
		got, err := v.Verify(t.Context(), is.token(string(payload)))
		if err != nil {
			return
		}
		checkAccepted(t, got.Claims)
		checkSameForGo(t, payload, got.Claims)
	})
}

// Go's decoder, which folds case and takes the last of two, must see the same
// claims in a payload that was accepted.
func checkSameForGo(t *testing.T, payload []byte, c token.ZoneClaims) {
	t.Helper()
	var folded wireZone
	if err := json.Unmarshal(payload, &folded); err != nil {
		t.Fatalf("accepted what is not even JSON: %v", err)
	}
	if want := (wireZone{c.Zone, c.Scope, wire(c.Registered)}); mustJSON(t, folded) != mustJSON(t, want) {
		t.Fatalf("got %+v, encoding/json sees %+v", want, folded)
	}
}

func checkAccepted(t *testing.T, c token.ZoneClaims) {
	t.Helper()
	if c.Zone == "" || c.ID == "" || len(c.Scope) == 0 || !c.ExpiresAt.After(testTime) || c.NotBefore.After(testTime) || c.IssuedAt.After(testTime) {
		t.Fatalf("accepted %+v", c)
	}
	for _, s := range c.Scope {
		if !token.ValidScope(s) {
			t.Fatalf("accepted scope %q", s)
		}
	}
}

func FuzzParseKeySet(f *testing.F) {
	f.Add([]byte(setBody(f, token.Algorithms()...)))
	for _, alg := range token.Algorithms() {
		f.Add([]byte(setBody(f, alg)))
	}
	f.Add([]byte(`{"keys":[]}`))
	f.Add([]byte(`{"keys":[{"kty":"oct","k":"AAAA","kid":"x","alg":"HS256","use":"sig"}]}`))
	f.Add([]byte(`{"keys":[{"kty":"AKP","kid":"a"},{"kty":"RSA","kid":"b","alg":"RS256","use":"sig","n":"AQAB","e":"AQAB"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		set, err := token.ParseKeySet(data)
		if err != nil {
			if set != nil || token.Reason(err) != "key_set" {
				t.Fatalf("got %v, %v", set, err)
			}
			return
		}
		for _, k := range set.Keys() {
			if _, err := token.NewKey(k.ID(), k.Algorithm(), k.Public()); err != nil {
				t.Fatalf("accepted a key that NewKey refuses: %v", err)
			}
		}
		if _, err := token.NewKeySet(set.Keys()...); err != nil {
			t.Fatalf("accepted keys that NewKeySet refuses: %v", err)
		}
		rendered := mustJSON(t, set)
		again, err := token.ParseKeySet([]byte(rendered))
		if err != nil || len(again.Skipped()) != 0 || mustJSON(t, again) != rendered {
			t.Fatalf("%s does not come back: %v", rendered, err)
		}
	})
}

// What the encoder writes is what encoding/json writes, and the verifier reads the
// same claims back.
func FuzzZoneRoundTrip(f *testing.F) {
	f.Add("west", "ingress", "id", "https://tokens.example.com", int64(60))
	f.Add("\xff\u2028<", "cp", "\x00\"\\", "", int64(1))
	is := testIssuers()["EdDSA"]
	v := zoneVerifier(f, testIssuers().keySet(f), token.Options{})
	f.Fuzz(func(t *testing.T, zone, scope, id, issuer string, seconds int64) {
		c := token.ZoneClaims{Zone: zone, Scope: []string{scope}, Registered: registered()}
		c.ID, c.Issuer, c.ExpiresAt = id, issuer, testTime.Add(time.Duration(seconds%1e6)*time.Second)
		encoded := string(c.AppendJSON(nil))
		if want := mustJSON(t, wireZone{zone, c.Scope, wire(c.Registered)}); encoded != want {
			t.Fatalf("got %s, want %s", encoded, want)
		}
		input := token.AppendSigningInput(nil, token.EncodeHeader(is.alg, is.kid), c)
		got, err := v.Verify(t.Context(), string(token.AppendSignature(input, is.sign(string(input)))))
		if err != nil {
			if token.ValidZoneName(zone) && token.ValidScope(scope) && id == goodID && seconds%1e6 > 0 && len(issuer) < 100 {
				t.Fatalf("refused %s: %v", encoded, err)
			}
			return
		}
		checkSameForGo(t, []byte(encoded), got.Claims)
	})
}
