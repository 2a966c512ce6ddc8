package service_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/store"
	"github.com/zonemint/zonemint/token"
)

var update = flag.Bool("update", false, "write the golden files")

// golden compares an answer with a file, byte by byte.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", "kuma", name+".json")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s:\n%s\nwant\n%s", name, got, want)
	}
}

// kuma sends what kumactl sends.
func (s *server) kuma(t *testing.T, token, body string) (*http.Response, string) {
	t.Helper()
	return s.do(t, "POST", "/tokens/zone", body, http.Header{
		"Authorization": {"Bearer " + token}, "Content-Type": {"application/json"}, "User-Agent": {"kumactl/2.14.3 (linux; amd64; Kuma/unknown)"},
	})
}

const kumaRequest = `{"zone":"west","scope":["ingress","egress"],"validFor":"1h0m0s"}`

func TestKumaZoneToken(t *testing.T) {
	s := newTestServer(t)
	v := must(token.NewVerifier[token.ZoneClaims](must(token.FetchKeySet(t.Context(), s.url+"/keysets/zone/jwks.json", token.RemoteOptions{})), token.Options{}))
	for body, scopes := range map[string]string{
		kumaRequest: "[ingress egress]", `{"zone":"west","scope":null,"validFor":"1h0m0s"}`: "[ingress egress]",
		`{"zone":"west","scope":["cp"],"validFor":"60m"}`: "[cp]", ` {"zone":"west","validFor":"3600s"} ` + "\n": "[ingress egress]",
	} {
		resp, answer := s.kuma(t, s.admin, body)
		if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/plain" || resp.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d %v", body, resp.StatusCode, resp.Header)
		}
		got, err := v.Verify(t.Context(), answer) // a newline at its end would not pass
		if err != nil || got.Claims.Zone != "west" || fmt.Sprint(got.Claims.Scope) != scopes {
			t.Errorf("%s: %+v, %v", body, got.Claims, err)
		}
		if left := time.Until(got.Claims.ExpiresAt); left < 59*time.Minute || left > time.Hour {
			t.Errorf("%s: expires in %s", body, left)
		}
	}
}

func TestKumaIdentity(t *testing.T) {
	w := newWorld(t)
	s := w.start(t, w.config())
	resp, body := s.get(t, "/")
	id := strings.Split(strings.SplitAfter(body, `"instanceId": "`)[1], `"`)[0]
	golden(t, "identity", strings.Replace(body, id, "INSTANCE", 1))
	if resp.Header.Get("Content-Type") != "application/json" || len(id) != 36 {
		t.Errorf("%v", resp.Header)
	}
	cfg := w.config()
	cfg.Kuma.Product = "Kong Mesh"
	cfg.Kuma.BasePath = "/kuma"
	s = w.start(t, cfg)
	for _, path := range []string{"/", "/kuma", "/kuma/"} {
		if resp, body := s.get(t, path); resp.StatusCode != 200 || !strings.Contains(body, `"product": "Kong Mesh"`) {
			t.Errorf("%s: %d %s", path, resp.StatusCode, body)
		}
	}
}

func TestKumaRefusals(t *testing.T) {
	s := newTestServer(t)
	auditor := s.apiToken(t, store.APIToken{Name: "a", Roles: []string{"auditor"}})
	narrow := s.apiToken(t, store.APIToken{Name: "n", Roles: []string{"issuer"}, Zones: []string{"east"}})
	for name, c := range map[string]struct {
		token, body string
		status      int
	}{
		"unauthenticated": {"zmt_x", kumaRequest, 401},
		"role":            {auditor, kumaRequest, 403},
		"zone":            {narrow, kumaRequest, 403},
		"empty":           {s.admin, `{}`, 400},
		"null":            {s.admin, `null`, 400},
		"faults":          {s.admin, `{"zone":"West_1","scope":["cp","bogus","cp","` + strings.Repeat("x", 40) + `"],"validFor":"-1h"}`, 400},
		"no-scopes":       {s.admin, `{"zone":"west","scope":[],"validFor":"soon"}`, 400},
		"many-scopes":     {s.admin, `{"zone":"west","scope":["` + strings.Repeat(`x","`, 10000) + `x"],"validFor":"1h"}`, 400},
		"zero":            {s.admin, `{"zone":"west","validFor":"0s"}`, 400},
		"no-lifetime":     {s.admin, `{"zone":"west"}`, 400},
		"too-long":        {s.admin, `{"zone":"west","validFor":"87600h"}`, 400},
		"too-large":       {s.admin, `{"zone":"` + strings.Repeat("a", 1<<20) + `"}`, 400},
	} {
		t.Run(name, func(t *testing.T) {
			resp, body := s.kuma(t, c.token, c.body)
			if resp.StatusCode != c.status || resp.Header.Get("Content-Type") != "application/json" || resp.Header.Get("X-Request-Id") == "" {
				t.Errorf("%d %v", resp.StatusCode, resp.Header)
			}
			if (c.status == 401) != (resp.Header.Get("WWW-Authenticate") == "Bearer") {
				t.Errorf("WWW-Authenticate: %q", resp.Header.Get("WWW-Authenticate"))
			}
			golden(t, name, body)
		})
	}
}

func TestKumaFaultsOfTheServer(t *testing.T) {
	w := newWorld(t)
	s := w.start(t, w.config())
	resp, body := s.kuma(t, s.admin, kumaRequest)
	golden(t, "no-keyset", body)
	if resp.StatusCode != 404 {
		t.Errorf("without a keyset: %d", resp.StatusCode)
	}
	if err := s.EnsureKeyset(t.Context(), zoneKeyset()); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		err    error
		status int
	}{
		"database-down": {store.ErrUnavailable, 503}, "database-full": {store.ErrFull, 429}, "internal": {errors.New("x"), 500},
	} {
		err := fmt.Errorf("%w: %s", c.err, canary)
		w.engine.ledger.Store(&err)
		resp, body := s.kuma(t, s.admin, kumaRequest)
		golden(t, name, body)
		if resp.StatusCode != c.status || strings.Contains(body, canary) {
			t.Errorf("%s: %d %s", name, resp.StatusCode, body)
		}
	}
}

// What Kuma answers without its error document, and in which order things are
// checked.
func TestKumaPlainAnswers(t *testing.T) {
	s := newTestServer(t)
	auditor := s.apiToken(t, store.APIToken{Name: "a", Roles: []string{"auditor"}})
	for name, c := range map[string]struct {
		token, ct, body string
		status          int
		text            string
	}{
		"not JSON":            {s.admin, "application/json", "{", 400, ""},
		"nothing":             {s.admin, "application/json", "", 400, ""},
		"an array":            {s.admin, "application/json", "[]", 400, ""},
		"wrong type":          {s.admin, "application/json", `{"zone":1}`, 400, ""},
		"two values":          {s.admin, "application/json", kumaRequest + kumaRequest, 400, ""},
		"trailing text":       {s.admin, "application/json", kumaRequest + "x", 400, ""},
		"charset":             {s.admin, "application/json; charset=utf-8", kumaRequest, 200, "eyJ"},
		"text":                {s.admin, "text/plain", kumaRequest, 415, "415: Unsupported Media Type"},
		"no type":             {s.admin, "", kumaRequest, 415, "415: Unsupported Media Type"},
		"ill-formed type":     {s.admin, "application/json;;", kumaRequest, 415, "415: Unsupported Media Type"},
		"who before how":      {"x", "text/plain", "{", 401, `"title": "Invalid authentication data"`},
		"may before how":      {auditor, "text/plain", "{", 403, `"title": "Access Denied"`},
		"how before what":     {s.admin, "text/plain", "{", 415, "415: Unsupported Media Type"},
		"may before validity": {auditor, "application/json", "{}", 403, `"title": "Access Denied"`},
	} {
		resp, body := s.do(t, "POST", "/tokens/zone", c.body, http.Header{"Authorization": {"Bearer " + c.token}, "Content-Type": {c.ct}})
		if resp.StatusCode != c.status || !strings.Contains(body, c.text) || (c.text == "" && body != "") {
			t.Errorf("%s: %d %q, want %d %q", name, resp.StatusCode, body, c.status, c.text)
		}
	}
	// Of dataplane tokens the request is looked at first.
	for body, status := range map[string]int{"{": 400, `{"name":"d1"}`: 400, `{"name":"d1","mesh":"default"}`: 403} {
		if resp, _ := s.post(t, auditor, "/tokens/dataplane", body); resp.StatusCode != status {
			t.Errorf("%s: %d, want %d", body, resp.StatusCode, status)
		}
	}
	resp, body := s.do(t, "GET", "/tokens/zone", "", nil)
	if resp.StatusCode != 405 || resp.Header.Get("Allow") != "POST" || !strings.HasPrefix(body, "405: Method Not Allowed") {
		t.Errorf("GET: %d %v %q", resp.StatusCode, resp.Header, body)
	}
}

// An API token that is revoked while the replica remembers it.
func TestKumaRevoked(t *testing.T) {
	s := newTestServer(t)
	text := s.apiToken(t, store.APIToken{Name: "ci", Roles: []string{"issuer"}})
	if resp, body := s.kuma(t, text, kumaRequest); resp.StatusCode != 200 {
		t.Fatal(body)
	}
	id := must(s.as(text).callers.WhoAmI(t.Context(), &pb.WhoAmIRequest{})).GetApiToken().GetId()
	tokens := must(s.db.APITokens(context.Background(), uuid.Max, 10))
	for _, made := range tokens {
		if made.ID.String() == id {
			must(s.db.RevokeAPIToken(t.Context(), made.ID, store.Actor{Name: "cli/x"}))
		}
	}
	resp, body := s.kuma(t, text, kumaRequest)
	golden(t, "unauthenticated", body)
	if resp.StatusCode != 401 {
		t.Errorf("%d", resp.StatusCode)
	}
}
