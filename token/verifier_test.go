package token_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zonemint/zonemint/token"
)

func TestVerifyReturnsTheClaims(t *testing.T) {
	is := testIssuers()["ES256"]
	want := token.ZoneClaims{Zone: "west", Scope: []string{"cp"}, Registered: registered()}
	want.Issuer = "https://tokens.example.com"
	input := token.AppendSigningInput(nil, token.EncodeHeader(is.alg, is.kid), want)
	raw := string(token.AppendSignature(input, is.sign(string(input))))

	got, err := zoneVerifier(t, testIssuers().keySet(t), token.Options{}).Verify(t.Context(), raw)
	if err != nil {
		t.Fatal(err)
	}
	if mustJSON(t, got.Claims) != mustJSON(t, want) || got.Claims.Registered != want.Registered {
		t.Errorf("got %+v, want %+v", got.Claims, want)
	}
	if want := (token.Header{Algorithm: "ES256", KeyID: is.kid}); got.Header != want {
		t.Errorf("got %+v, want %+v", got.Header, want)
	}
}

// The other profiles go through the same verifier: what differs is which claims
// they take.
func TestOtherProfiles(t *testing.T) {
	is, keys := testIssuers()["EdDSA"], testIssuers().keySet(t)
	o := token.Options{Now: fixed(testTime)}
	dataplanes := must(token.NewVerifier[token.DataplaneClaims](keys, o))
	users := must(token.NewVerifier[token.UserClaims](keys, o))
	dataplane := func(c token.DataplaneClaims, edit ...string) func() error {
		c.Registered = registered()
		raw := is.token(strings.NewReplacer(edit...).Replace(string(c.AppendJSON(nil))))
		return func() error {
			_, err := dataplanes.Verify(t.Context(), raw, token.RequireMesh("m"))
			return err
		}
	}
	user := func(payload string) func() error {
		return func() error {
			_, err := users.Verify(t.Context(), is.token(payload))
			return err
		}
	}
	tags := map[string][]string{"kuma.io/service": {"a", "b"}}
	bob := string(token.UserClaims{Name: "bob", Registered: registered()}.AppendJSON(nil))
	for name, c := range map[string]struct {
		verify func() error
		reason string
	}{
		"named":          {dataplane(token.DataplaneClaims{Mesh: "m", Name: "d"}), "ok"},
		"tagged":         {dataplane(token.DataplaneClaims{Mesh: "m", Tags: tags, Type: "dataplane"}), "ok"},
		"workload":       {dataplane(token.DataplaneClaims{Mesh: "m", Workload: "w"}), "ok"},
		"other mesh":     {dataplane(token.DataplaneClaims{Mesh: "n", Name: "d"}), "requirement"},
		"no mesh":        {dataplane(token.DataplaneClaims{Name: "d"}), "claims"},
		"no subject":     {dataplane(token.DataplaneClaims{Mesh: "m", Tags: map[string][]string{}}), "claims"},
		"other type":     {dataplane(token.DataplaneClaims{Mesh: "m", Name: "d", Type: "ingress"}), "claims"},
		"tag of nothing": {dataplane(token.DataplaneClaims{Mesh: "m", Tags: map[string][]string{"a": {}}}), "claims"},
		"tag twice":      {dataplane(token.DataplaneClaims{Mesh: "m", Tags: tags}, `"Tags":{`, `"Tags":{"kuma.io/service":["c"],`), "claims"},
		"tag of numbers": {dataplane(token.DataplaneClaims{Mesh: "m", Tags: tags}, `"a"`, `1`), "claims"},
		"tags array":     {dataplane(token.DataplaneClaims{Mesh: "m", Name: "d"}, `null`, `["a"]`), "claims"},
		"mesh in case":   {dataplane(token.DataplaneClaims{Mesh: "m", Name: "d"}, `Mesh`, `mesh`), "claims"},
		"dataplane user": {dataplane(token.DataplaneClaims{Mesh: "m", Name: "d"}, `"Workload":""`, `"Groups":[]`), "claims"},
		"user":           {user(bob), "ok"},
		"user of groups": {user(strings.Replace(bob, "null", `["a","b"]`, 1)), "ok"},
		"user of number": {user(strings.Replace(bob, "null", `[1]`, 1)), "claims"},
		"user no name":   {user(strings.Replace(bob, "bob", ``, 1)), "claims"},
		"user in mesh":   {user(with(bob, `"Mesh":"m"`)), "claims"},
		"user for zone":  {user(payload()), "claims"},
	} {
		if err := c.verify(); token.Reason(err) != c.reason {
			t.Errorf("%s: got %v, want %s", name, err, c.reason)
		}
	}
}

func TestRequirements(t *testing.T) {
	raw := testIssuers()["ES256"].token(payload())
	v := zoneVerifier(t, testIssuers().keySet(t), token.Options{})
	type list = []token.Requirement[token.ZoneClaims]
	own := func(token.ZoneClaims) error { return token.ErrExpired }
	for name, c := range map[string]struct {
		require list
		reason  string
	}{
		"none":       {nil, "ok"},
		"all":        {list{token.RequireZone("west"), token.RequireScopes("egress", "ingress")}, "ok"},
		"no scope":   {list{token.RequireScopes()}, "ok"},
		"other zone": {list{token.RequireZone("east")}, "requirement"},
		"other case": {list{token.RequireZone("West")}, "requirement"},
		"empty zone": {list{token.RequireZone("")}, "requirement"},
		"scope":      {list{token.RequireZone("west"), token.RequireScopes("ingress", "cp")}, "requirement"},
		"own":        {list{own}, "requirement"},
	} {
		if _, err := v.Verify(t.Context(), raw, c.require...); token.Reason(err) != c.reason {
			t.Errorf("%s: got %v, want %s", name, err, c.reason)
		}
	}
}

func TestIssuer(t *testing.T) {
	is, want := testIssuers()["ES256"], "https://tokens.example.com"
	v := zoneVerifier(t, testIssuers().keySet(t), token.Options{Issuer: want})
	for members, reason := range map[string]string{
		`"iss":"` + want + `"`: "ok", `"x":1`: "issuer", `"iss":""`: "issuer", `"iss":"` + want + `/"`: "issuer",
	} {
		if _, err := v.Verify(t.Context(), is.token(with(payload(), members))); token.Reason(err) != reason {
			t.Errorf("%s: got %v, want %s", members, err, reason)
		}
	}
}

func TestLeeway(t *testing.T) {
	raw := testIssuers()["ES256"].token(payload()) // valid from 5 s before testTime to 1 h after
	for _, c := range []struct {
		leeway, now time.Duration
		reason      string
	}{
		{0, time.Hour - 1, "ok"},
		{0, time.Hour, "expired"},
		{0, -5 * time.Second, "ok"},
		{0, -5*time.Second - 1, "not_yet_valid"},
		{time.Minute, time.Hour + time.Minute - 1, "ok"},
		{time.Minute, time.Hour + time.Minute, "expired"},
		{time.Minute, -65 * time.Second, "ok"},
		{time.Minute, -65*time.Second - 1, "not_yet_valid"},
	} {
		v := zoneVerifier(t, testIssuers().keySet(t), token.Options{Leeway: c.leeway, Now: fixed(testTime.Add(c.now))})
		if _, err := v.Verify(t.Context(), raw); token.Reason(err) != c.reason {
			t.Errorf("leeway %s at %s: got %v, want %s", c.leeway, c.now, err, c.reason)
		}
	}
}

// revocations knows what it holds, or nothing if it holds an error.
type revocations struct {
	ids []string
	err error
}

func (r revocations) Revoked(_ context.Context, jti string) (bool, error) {
	return slices.Contains(r.ids, jti), r.err
}

func TestRevocations(t *testing.T) {
	raw, down := testIssuers()["ES256"].token(payload()), errors.New("feed has not arrived")
	for name, c := range map[string]struct {
		hook   revocations
		open   bool
		reason string
	}{
		"not revoked":             {revocations{ids: []string{"other"}}, false, "ok"},
		"revoked":                 {revocations{ids: []string{goodID}}, false, "revoked"},
		"unavailable":             {revocations{err: down}, false, "revocations_unavailable"},
		"unavailable, open":       {revocations{err: down}, true, "ok"},
		"unavailable but revoked": {revocations{ids: []string{goodID}, err: down}, true, "revoked"},
	} {
		v := zoneVerifier(t, testIssuers().keySet(t), token.Options{Revocations: c.hook, RevocationsFailOpen: c.open})
		_, err := v.Verify(t.Context(), raw)
		if token.Reason(err) != c.reason {
			t.Errorf("%s: got %v, want %s", name, err, c.reason)
		}
		if c.reason == "revocations_unavailable" && !errors.Is(err, down) {
			t.Errorf("%s: %v hides its cause", name, err)
		}
	}
}

// badSource breaks the contract of a key source.
type badSource struct{ err error }

func (s badSource) Key(context.Context, string) (token.Key, error) { return token.Key{}, s.err }

func TestBadKeySources(t *testing.T) {
	raw := testIssuers()["ES256"].token(payload())
	for reason, s := range map[string]badSource{
		"algorithm":        {},
		"keys_unavailable": {errors.New("database is down")},
		"stale_keys":       {token.ErrStaleKeys},
	} {
		if _, err := zoneVerifier(t, s, token.Options{}).Verify(t.Context(), raw); token.Reason(err) != reason {
			t.Errorf("got %v, want %s", err, reason)
		}
	}
}

func TestNewVerifierRefuses(t *testing.T) {
	keys := testIssuers().keySet(t)
	if _, err := token.NewVerifier[token.ZoneClaims](nil, token.Options{}); err == nil {
		t.Error("no keys: accepted")
	}
	for _, o := range []token.Options{{Leeway: -1}, {Leeway: token.MaxLeeway + 1}, {RevocationsFailOpen: true}} {
		if _, err := token.NewVerifier[token.ZoneClaims](keys, o); err == nil {
			t.Errorf("%+v: accepted", o)
		}
	}
}

// Whatever character of a token is changed into whatever else, it is refused.
func TestEveryCharacterCounts(t *testing.T) {
	v := zoneVerifier(t, testIssuers().keySet(t), token.Options{})
	for _, alg := range []string{"RS256", "ES256", "EdDSA"} {
		raw := testIssuers()[alg].token(payload())
		for i := range len(raw) {
			for _, c := range []byte("A_z.=\n") {
				changed := raw[:i] + string(c) + raw[i+1:]
				if _, err := v.Verify(t.Context(), changed); err == nil && changed != raw {
					t.Fatalf("%s: still good with %q at %d", alg, c, i)
				}
			}
			if _, err := v.Verify(t.Context(), raw[:i]); err == nil {
				t.Fatalf("%s: still good when cut to %d", alg, i)
			}
		}
	}
}

func TestVerifyConcurrently(t *testing.T) {
	v := zoneVerifier(t, testIssuers().keySet(t), token.Options{Revocations: revocations{}})
	var wg sync.WaitGroup
	for _, alg := range token.Algorithms() {
		raw := testIssuers()[alg].token(payload())
		for range 4 {
			wg.Go(func() {
				if _, err := v.Verify(t.Context(), raw, token.RequireZone("west")); err != nil {
					t.Errorf("%s: %v", alg, err)
				}
			})
		}
	}
	wg.Wait()
}

func TestUnverifiedHeader(t *testing.T) {
	is := foreignIssuer()
	got, err := token.UnverifiedHeader(is.token(payload()))
	if want := (token.Header{Algorithm: is.alg, KeyID: is.kid}); err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := token.UnverifiedHeader("a.b"); !errors.Is(err, token.ErrMalformed) {
		t.Errorf("got %v", err)
	}
}

func TestReasons(t *testing.T) {
	words := token.Reasons()
	if slices.Contains(words, "") || len(slices.Compact(slices.Clone(words))) != len(words) {
		t.Errorf("words repeat: %v", words)
	}
	if got := token.Reason(errors.New("x")); got != "other" {
		t.Errorf("got %q", got)
	}
	for _, c := range vectors(testIssuers()) {
		if !slices.Contains(words, c.Reason) {
			t.Errorf("%s: %q is not among the reasons", c.Name, c.Reason)
		}
	}
}
