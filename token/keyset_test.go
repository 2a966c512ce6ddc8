package token_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"

	"github.com/zonemint/zonemint/token"
)

// entry renders one key as a JWK, changed by members that replace its own; nil
// removes one.
func entry(t *testing.T, is issuer, changes map[string]any) string {
	t.Helper()
	var set struct{ Keys []map[string]any }
	rendered := mustJSON(t, must(token.NewKeySet(is.key(t))))
	if err := json.Unmarshal([]byte(rendered), &set); err != nil {
		t.Fatal(err)
	}
	jwk := set.Keys[0]
	for name, value := range changes {
		if jwk[name] = value; value == nil {
			delete(jwk, name)
		}
	}
	return mustJSON(t, jwk)
}

func setOf(entries ...string) []byte {
	return []byte(`{"keys":[` + strings.Join(entries, ",") + `]}`)
}

func TestKeySetRoundTrip(t *testing.T) {
	want := testIssuers().keySet(t)
	data := mustJSON(t, want)
	got, err := token.ParseKeySet([]byte(data))
	if err != nil || len(got.Skipped()) != 0 {
		t.Fatalf("%v, skipped %v", err, got.Skipped())
	}
	if again := mustJSON(t, got); again != data {
		t.Errorf("got %s, want %s", again, data)
	}
	if !slices.Equal(got.IDs(), want.IDs()) {
		t.Errorf("got %v, want %v", got.IDs(), want.IDs())
	}
	for _, k := range got.Keys() {
		same, err := want.Key(t.Context(), k.ID())
		if err != nil || same.Algorithm() != k.Algorithm() || !same.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(k.Public()) {
			t.Errorf("key %s: got %v, %v", k.ID(), same, err)
		}
	}
	if _, err := got.Key(t.Context(), "zone-4"); !errors.Is(err, token.ErrUnknownKey) {
		t.Errorf("got %v", err)
	}
}

func TestRenderedMembers(t *testing.T) {
	for alg, want := range map[string]string{"RS256": "alg,e,kid,kty,n,use", "ES256": "alg,crv,kid,kty,use,x,y", "EdDSA": "alg,crv,kid,kty,use,x"} {
		var jwk map[string]string
		if err := json.Unmarshal([]byte(entry(t, testIssuers()[alg], nil)), &jwk); err != nil {
			t.Fatal(err)
		}
		var names []string
		for name := range jwk {
			names = append(names, name)
		}
		slices.Sort(names)
		if got := strings.Join(names, ","); got != want || jwk["use"] != "sig" || jwk["alg"] != alg {
			t.Errorf("%s: got %v", alg, jwk)
		}
	}
	if got := mustJSON(t, must(token.NewKeySet())); got != `{"keys":[]}` {
		t.Errorf("empty set is %s", got)
	}
}

// An entry that cannot be used is skipped; the good one beside it is not.
func TestParseKeySetSkips(t *testing.T) {
	rs, es, ed := testIssuers()["RS256"], testIssuers()["ES256"], testIssuers()["EdDSA"]
	good := entry(t, testIssuers()["ES384"], nil)
	change := func(is issuer, name string, value any) string { return entry(t, is, map[string]any{name: value}) }
	short := must(rsa.GenerateKey(rand.Reader, 1024)).N.Bytes()
	for name, bad := range map[string]string{
		"unknown type":       `{"kty":"AKP","alg":"ML-DSA-44","kid":"x","use":"sig","pub":"AAAA"}`,
		"unknown algorithm":  change(rs, "alg", "RS1"),
		"unknown curve":      change(es, "crv", "secp256k1"),
		"key agreement":      change(ed, "crv", "X25519"),
		"HMAC by alg":        change(rs, "alg", "HS256"),
		"none by alg":        change(rs, "alg", "none"),
		"other family":       change(rs, "alg", "ES256"),
		"other curve":        change(es, "alg", "ES384"),
		"no alg":             change(rs, "alg", nil),
		"no kid":             change(rs, "kid", nil),
		"empty kid":          change(rs, "kid", ""),
		"long kid":           change(rs, "kid", strings.Repeat("k", 256)),
		"numeric kid":        change(rs, "kid", 3),
		"no kty":             change(rs, "kty", nil),
		"no use":             change(rs, "use", nil),
		"for encryption":     change(rs, "use", "enc"),
		"not to verify":      change(rs, "key_ops", []string{"encrypt"}),
		"key_ops of number":  change(rs, "key_ops", 1),
		"short modulus":      change(rs, "n", b64(string(short))),
		"long modulus":       change(rs, "n", b64(strings.Repeat("\xff", 1025))),
		"even modulus":       change(rs, "n", b64("\x80"+strings.Repeat("\x00", 255))),
		"no modulus":         change(rs, "n", nil),
		"padded modulus":     change(rs, "n", b64("\x00"+string(rs.private.Public().(*rsa.PublicKey).N.Bytes()))),
		"base64 modulus":     change(rs, "n", "+++"),
		"exponent 1":         change(rs, "e", "AQ"),
		"even exponent":      change(rs, "e", "AQAA"),
		"long exponent":      change(rs, "e", b64("\x01\x00\x00\x00\x00\x00\x01\x00\x01")),
		"exponent spare bit": change(rs, "e", "AQAC"),
		"off the curve":      change(es, "x", b64(strings.Repeat("\x01", 32))),
		"short coordinate":   change(es, "x", b64(strings.Repeat("\x01", 31))),
		"no coordinate":      change(es, "y", nil),
		"short Ed25519":      change(ed, "x", b64(strings.Repeat("\x01", 31))),
		"with line break":    change(ed, "x", "\n"+b64(string(ed.private.Public().(ed25519.PublicKey)))),
	} {
		set, err := token.ParseKeySet(setOf(bad, good))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if ids := set.IDs(); len(ids) != 1 || ids[0] != testIssuers()["ES384"].kid {
			t.Errorf("%s: keys are %v", name, ids)
		}
		if s := set.Skipped(); len(s) != 1 || s[0].Err == nil {
			t.Errorf("%s: skipped %v", name, s)
		}
	}
}

func TestParseKeySetRefuses(t *testing.T) {
	rs, es := testIssuers()["RS256"], testIssuers()["ES256"]
	good := entry(t, rs, nil)
	for name, data := range map[string][]byte{
		"empty":              {},
		"HTML":               []byte("<html>"),
		"null":               []byte("null"),
		"no keys":            []byte(`{}`),
		"keys in capitals":   []byte(`{"KEYS":[]}`),
		"null keys":          []byte(`{"keys":null}`),
		"keys object":        []byte(`{"keys":{}}`),
		"keys twice":         []byte(`{"keys":[],"keys":[]}`),
		"trailing":           append(setOf(good), "{}"...),
		"cut":                setOf(good)[:100],
		"not UTF-8":          []byte("{\"keys\":[],\"x\":\"\xff\"}"),
		"too long":           append(setOf(good), slices.Repeat([]byte(" "), token.MaxKeySetSize)...),
		"entry of text":      setOf(`"x"`),
		"entry of null":      setOf(`null`),
		"kid in two entries": setOf(good, entry(t, es, map[string]any{"kid": rs.kid})),
		"kid, one skipped":   setOf(good, `{"kty":"AKP","kid":"`+rs.kid+`"}`),
		"name twice":         setOf(with(good, `"alg":"RS256"`)),
		"symmetric key":      setOf(good, `{"kty":"oct","k":"AAAA","kid":"x","alg":"HS256","use":"sig"}`),
		"symmetric by type":  setOf(good, `{"kty":"oct","kid":"x"}`),
		"symmetric by k":     setOf(good, `{"kty":"AKP","kid":"x","k":"AAAA"}`),
		"private RSA":        setOf(good, entry(t, es, map[string]any{"d": "AAAA"})),
		"private in unknown": setOf(good, `{"kty":"AKP","kid":"x","d":"AAAA"}`),
		"private prime":      setOf(entry(t, rs, map[string]any{"p": "AAAA"})),
		"private null":       setOf(entry(t, rs, map[string]any{"d": json.RawMessage("null")})),
	} {
		if set, err := token.ParseKeySet(data); !errors.Is(err, token.ErrKeySet) || token.Reason(err) != "key_set" || set != nil {
			t.Errorf("%s: got %v, %v", name, set, err)
		}
	}
}

// A set without usable keys is a set: were it refused, distrusting the last key
// would have no effect.
func TestParseKeySetAcceptsEmpty(t *testing.T) {
	for _, data := range []string{`{"keys":[]}`, ` {"x":1,"keys":[ ]} `, `{"keys":[{"kty":"AKP"}]}`} {
		if set, err := token.ParseKeySet([]byte(data)); err != nil || len(set.Keys()) != 0 {
			t.Errorf("%s: got %v, %v", data, set, err)
		}
	}
}

func TestNewKeySetRefuses(t *testing.T) {
	k := testIssuers()["RS256"].key(t)
	for name, keys := range map[string][]token.Key{"twice": {k, k}, "zero": {{}}} {
		if _, err := token.NewKeySet(keys...); !errors.Is(err, token.ErrKeySet) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestNewKeyRefuses(t *testing.T) {
	rs := testIssuers()["RS256"].private.Public().(*rsa.PublicKey)
	off := *testIssuers()["ES256"].private.Public().(*ecdsa.PublicKey)
	off.X = big.NewInt(1) //nolint:staticcheck // no constructor makes a key this bad
	p521 := must(ecdsa.GenerateKey(elliptic.P521(), rand.Reader))
	for name, c := range map[string]struct {
		id, alg string
		public  any
	}{
		"no ID":         {"", "RS256", rs},
		"HMAC":          {"k", "HS256", []byte("secret")},
		"none":          {"k", "none", nil},
		"nil":           {"k", "RS256", nil},
		"private":       {"k", "RS256", testIssuers()["RS256"].private},
		"RSA as ECDSA":  {"k", "ES256", rs},
		"RSA as EdDSA":  {"k", "EdDSA", rs},
		"P-521":         {"k", "ES256", &p521.PublicKey},
		"ES512":         {"k", "ES512", &p521.PublicKey},
		"off the curve": {"k", "ES256", &off},
		"EC as RSA":     {"k", "PS256", testIssuers()["ES256"].private.Public()},
		"Ed as ECDSA":   {"k", "ES256", testIssuers()["EdDSA"].private.Public()},
		"short Ed":      {"k", "EdDSA", ed25519.PublicKey("short")},
		"no modulus":    {"k", "RS256", &rsa.PublicKey{E: 3}},
		"even exponent": {"k", "RS256", &rsa.PublicKey{N: rs.N, E: 4}},
		"huge modulus":  {"k", "RS256", &rsa.PublicKey{N: new(big.Int).Add(new(big.Int).Lsh(big.NewInt(1), 8192), big.NewInt(1)), E: 3}},
	} {
		if _, err := token.NewKey(c.id, c.alg, c.public); !errors.Is(err, token.ErrKeySet) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestParseKey(t *testing.T) {
	rs := testIssuers()["RS256"]
	spki := must(x509.MarshalPKIXPublicKey(rs.private.Public()))
	block := func(typ string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: der}))
	}
	good := block("PUBLIC KEY", spki)
	pkcs1 := block("RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(rs.private.Public().(*rsa.PublicKey)))
	for name, data := range map[string]string{"PKIX": good, "PKCS #1": pkcs1, "with space": "\n" + good + "\n"} {
		k, err := token.ParseKey(rs.kid, "RS256", []byte(data))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		v := zoneVerifier(t, must(token.NewKeySet(k)), token.Options{})
		if _, err := v.Verify(t.Context(), rs.token(payload())); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	private := must(x509.MarshalPKCS8PrivateKey(rs.private))
	for name, data := range map[string]string{
		"empty": "", "two": good + good, "trailing": good + "x", "private": block("PRIVATE KEY", private),
		"mislabelled": block("PUBLIC KEY", private), "certificate": block("CERTIFICATE", spki), "junk": block("PUBLIC KEY", []byte("x")),
	} {
		if _, err := token.ParseKey("k", "RS256", []byte(data)); !errors.Is(err, token.ErrKeySet) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// The examples of RFC 7515 appendix A.3 and RFC 8037 appendix A.4: keys and
// signatures that were made by others. Their tokens have no kid.
func TestKeysOfTheRFCs(t *testing.T) {
	for _, c := range []struct{ alg, jwk, signed, signature string }{
		{"ES256", `"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"`,
			"eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ",
			"DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"},
		{"EdDSA", `"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"`,
			"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc",
			"hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"},
	} {
		set, err := token.ParseKeySet(setOf(fmt.Sprintf(`{"kid":"k","use":"sig","alg":%q,%s}`, c.alg, c.jwk)))
		if err != nil || len(set.Keys()) != 1 {
			t.Fatalf("%s: %v, %v", c.alg, err, set.Skipped())
		}
		if err := token.VerifyForTest(set.Keys()[0], c.signed, c.signature); err != nil {
			t.Errorf("%s: %v", c.alg, err)
		}
	}
}
