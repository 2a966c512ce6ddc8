package token_test

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/zonemint/zonemint/token"
)

// The wire structs say independently of the encoders what each payload looks like.
type wireRegistered struct {
	Exp int64  `json:"exp,omitempty"`
	Nbf int64  `json:"nbf,omitempty"`
	Iat int64  `json:"iat,omitempty"`
	Jti string `json:"jti,omitempty"`
	Iss string `json:"iss,omitempty"`
}

type wireZone struct {
	Zone  string
	Scope []string
	wireRegistered
}

type wireDataplane struct {
	Name, Mesh     string
	Tags           map[string][]string
	Type, Workload string
	wireRegistered
}

type wireUser struct {
	Name   string
	Groups []string
	wireRegistered
}

func wire(r token.Registered) wireRegistered {
	unix := func(t time.Time) int64 {
		if t.IsZero() {
			return 0
		}
		return t.Unix()
	}
	return wireRegistered{unix(r.ExpiresAt), unix(r.NotBefore), unix(r.IssuedAt), r.ID, r.Issuer}
}

func mustJSON(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// testTime is when the tokens of these tests are verified.
var testTime = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func registered() token.Registered {
	return token.Registered{
		ExpiresAt: testTime.Add(time.Hour),
		NotBefore: testTime.Add(-5 * time.Second),
		IssuedAt:  testTime.Add(-5 * time.Second),
		ID:        "0198c5f0-7a3e-7d5a-9b1c-2f4e6a8c0d1e",
	}
}

func TestZonePayloadIsExact(t *testing.T) {
	c := token.ZoneClaims{Zone: "west", Scope: token.DefaultScopes(), Registered: registered()}
	want := `{"Zone":"west","Scope":["ingress","egress"],"exp":1767229200,"nbf":1767225595,"iat":1767225595,` +
		`"jti":"0198c5f0-7a3e-7d5a-9b1c-2f4e6a8c0d1e"}`
	if got := string(c.AppendJSON(nil)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	c.Issuer = "https://tokens.example.com"
	want = want[:len(want)-1] + `,"iss":"https://tokens.example.com"}`
	if got := string(c.AppendJSON(nil)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestEncodersAgreeWithEncodingJSON(t *testing.T) {
	texts := []string{
		"", "west", `quo"te`, `back\slash`, "\x00\x01\b\f\n\r\t\x1f\x7f", "<script>&amp;", "zürich", "日本",
		"\u2028\u2029", "\xff\xfe", "a\xc3", "\U0001f600", "\ufffd", strings.Repeat("ab\"", 100),
	}
	for _, s := range texts {
		r := registered()
		r.ID, r.Issuer = s, s
		zone := token.ZoneClaims{Zone: s, Scope: []string{s, "x", s}, Registered: r}
		if got, want := string(zone.AppendJSON(nil)), mustJSON(t, wireZone{s, zone.Scope, wire(r)}); got != want {
			t.Errorf("zone %q: got %s, want %s", s, got, want)
		}
		dp := token.DataplaneClaims{
			Name: s, Mesh: s, Tags: map[string][]string{"b" + s: {s}, "a": nil, "c": {}}, Type: s, Workload: s, Registered: r,
		}
		if got, want := string(dp.AppendJSON(nil)), mustJSON(t, wireDataplane{s, s, dp.Tags, s, s, wire(r)}); got != want {
			t.Errorf("dataplane %q: got %s, want %s", s, got, want)
		}
		user := token.UserClaims{Name: s, Groups: []string{s}, Registered: r}
		if got, want := string(user.AppendJSON(nil)), mustJSON(t, wireUser{s, user.Groups, wire(r)}); got != want {
			t.Errorf("user %q: got %s, want %s", s, got, want)
		}
	}
}

func TestEncodersOfZeroClaims(t *testing.T) {
	for got, want := range map[string]string{
		mustJSON(t, token.ZoneClaims{}):      `{"Zone":"","Scope":null}`,
		mustJSON(t, token.DataplaneClaims{}): `{"Name":"","Mesh":"","Tags":null,"Type":"","Workload":""}`,
		mustJSON(t, token.UserClaims{}):      `{"Name":"","Groups":null}`,
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestEncodeHeader(t *testing.T) {
	got, err := base64.RawURLEncoding.DecodeString(token.EncodeHeader("RS256", "zone-3-9f86d081"))
	if want := `{"alg":"RS256","kid":"zone-3-9f86d081","typ":"JWT"}`; err != nil || string(got) != want {
		t.Errorf("got %s, %v, want %s", got, err, want)
	}
}

func TestSigningInput(t *testing.T) {
	c := token.ZoneClaims{Zone: "west", Scope: token.DefaultScopes(), Registered: registered()}
	want := "HEADER." + base64.RawURLEncoding.EncodeToString(c.AppendJSON(nil))
	buf := append(make([]byte, 0, 1024), "kept:"...)
	for name, dst := range map[string][]byte{"nil": nil, "short": []byte("kept:"), "room": buf} {
		got := string(token.AppendSigningInput(dst, "HEADER", c))
		if got != string(dst)+want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
	if got := string(token.AppendSignature([]byte("h.p"), []byte{0xfb, 0xff})); got != "h.p.-_8" {
		t.Errorf("got %s", got)
	}
}

func TestSigningInputAllocatesNothing(t *testing.T) {
	c := token.ZoneClaims{Zone: "west", Scope: token.DefaultScopes(), Registered: registered()}
	header := token.EncodeHeader("RS256", "zone-3-9f86d081")
	buf := make([]byte, 0, 1024)
	if n := testing.AllocsPerRun(100, func() { buf = token.AppendSigningInput(buf[:0], header, c) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestValidZoneName(t *testing.T) {
	long := strings.Repeat("a", 63)
	for _, s := range []string{"a", "9", "west", "zone-1", "1-a", long} {
		if !token.ValidZoneName(s) {
			t.Errorf("%q is valid", s)
		}
	}
	for _, s := range []string{"", "-", "-a", "a-", "West", "a.b", "a_b", "a b", "zürich", "a\n", long + "a", "west;"} {
		if token.ValidZoneName(s) {
			t.Errorf("%q is not valid", s)
		}
	}
}

func TestValidScope(t *testing.T) {
	for _, s := range append(token.DefaultScopes(), token.ScopeCP) {
		if !token.ValidScope(s) {
			t.Errorf("%q is a scope", s)
		}
	}
	for _, s := range []string{"", "CP", "ingress ", "admin"} {
		if token.ValidScope(s) {
			t.Errorf("%q is no scope", s)
		}
	}
}
