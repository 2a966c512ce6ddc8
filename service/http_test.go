package service_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/service/caller"
	"github.com/zonemint/zonemint/store"
)

// Nothing but what is named here answers without a credential.
func TestOnlyWhatIsOpenIsOpen(t *testing.T) {
	w := newWorld(t)
	cfg := w.config()
	cfg.Issuer = "https://tokens.example.com"
	s := w.start(t, cfg, zoneKeyset(), &pb.Keyset{Name: "dataplane/default", Profile: pb.Profile_PROFILE_DATAPLANE, Algorithm: "ES256"})
	for path, want := range map[string]int{
		"/": 200, "/.well-known/jwks.json": 200, "/keysets/zone/jwks.json": 200, "/keysets/dataplane/default/jwks.json": 200,
		"/keysets/dataplane%2fdefault/jwks.json": 200, "/.well-known/openid-configuration": 200,
		"/keysets/nosuch/jwks.json": 404, "/keysets//jwks.json": 404, "/keysets/../jwks.json": 404, "/keysets/zone%00/jwks.json": 404,
		"/keysets/../.well-known/jwks.json": 404, "/keysets/zone/../../tokens/zone/jwks.json": 404,
		"/keysets/zone": 401, "/keysets/zone/": 401, "/keysets/jwks.json": 401, "/keysets/zone/jwks.json/": 401, "/keysets/zone/JWKS.json": 401,
		"/keysets/zone/revocations": 401, "/metrics": 401, "/healthz/live": 401, "/healthz/ready": 401, "/debug/pprof/": 401,
		"/nosuch": 401, "/.well-known/": 401, "/index.html": 401, "/tokens/": 401, "/tokens/zone": 405, "/tokens/zone/": 401, "/tokens/dataplane": 405, "/tokens/user": 405, "/tokens/bogus": 401,
		"//tokens/zone": 307, "/keysets/../tokens/zone": 307, "//keysets/zone/jwks.json": 307, "/./": 307,
	} {
		resp, body := s.get(t, path)
		if resp.StatusCode != want {
			t.Errorf("GET %s: %d, want %d", path, resp.StatusCode, want)
		}
		if want == 401 && !strings.Contains(body, `"code":"unauthenticated"`) {
			t.Errorf("GET %s: %s", path, body)
		}
	}
}

func TestOtherMethods(t *testing.T) {
	s := newTestServer(t)
	for _, c := range []struct {
		method, path string
		want         int
	}{
		{"HEAD", "/", 200}, {"OPTIONS", "/", 401}, {"POST", "/", 401}, {"DELETE", "/", 401},
		{"HEAD", "/keysets/zone/jwks.json", 200}, {"OPTIONS", "/keysets/zone/jwks.json", 405}, {"POST", "/keysets/zone/jwks.json", 405},
		{"PUT", "/keysets/nosuch/jwks.json", 405}, {"HEAD", "/.well-known/jwks.json", 200}, {"DELETE", "/.well-known/jwks.json", 405},
		{"POST", "/tokens/zone", 401}, {"OPTIONS", "/tokens/zone", 405}, {"HEAD", "/tokens/zone", 405}, {"PUT", "/tokens/zone", 405},
		{"POST", "//tokens/zone", 307}, {"get", "/keysets/zone/jwks.json", 405}, {"BREW", "/x", 401},
	} {
		if resp, _ := s.do(t, c.method, c.path, "", nil); resp.StatusCode != c.want {
			t.Errorf("%s %s: %d, want %d", c.method, c.path, resp.StatusCode, c.want)
		}
	}
}

func TestJWKSOverTheWire(t *testing.T) {
	s := newTestServer(t)
	resp, body := s.get(t, "/keysets/zone/jwks.json")
	if ct := resp.Header.Get("Content-Type"); ct != "application/jwk-set+json" || strings.Count(body, `"kid":"zone-`) != 2 || strings.Contains(body, `"d":`) {
		t.Errorf("%s: %s", ct, body)
	}
	var age int
	if _, err := fmt.Sscanf(resp.Header.Get("Cache-Control"), "public, max-age=%d", &age); err != nil || age < 12 || age > 30 {
		t.Errorf("%s, want half of the lease at least and all of it at most", resp.Header.Get("Cache-Control"))
	}
	again, body := s.do(t, "GET", "/keysets/zone/jwks.json", "", http.Header{"If-None-Match": {resp.Header.Get("Etag")}})
	if again.StatusCode != 304 || body != "" {
		t.Errorf("again: %d, %d bytes", again.StatusCode, len(body))
	}
	if head, body := s.do(t, "HEAD", "/keysets/zone/jwks.json", "", nil); head.ContentLength != resp.ContentLength || body != "" {
		t.Errorf("HEAD: %d bytes, GET: %d", head.ContentLength, resp.ContentLength)
	}
}

// every procedure, and some that do not exist
func paths() []string {
	list := []string{
		"/zonemint.v1.TokenService/NoSuch", "/zonemint.v1.NoSuch/IssueZoneToken", "/zonemint.v1.TokenService/", "/x/y/z",
		"/x/zonemint.v1.TokenService/IssueZoneToken", "/zonemint.v1.TokenService/IssueZoneToken/", "/ZONEMINT.v1.TokenService/IssueZoneToken",
		"/grpc.reflection.v1.ServerReflection/Other", "/connect.ping.v1.PingService/Ping",
	}
	for p := range caller.Methods() {
		list = append(list, p)
	}
	return list
}

func TestEveryProcedureNeedsACredential(t *testing.T) {
	s := newTestServer(t)
	for _, path := range paths() {
		for _, ct := range []string{"application/json", "application/proto", "application/grpc", "application/grpc-web+proto", "text/plain", ""} {
			for _, auth := range [][]string{nil, {""}, {"Bearer x"}, {"Basic YTpi"}, {"Bearer " + s.admin, "Bearer " + s.admin}, {"", "Bearer " + s.admin}} {
				resp, body := s.do(t, "POST", path, "{}", http.Header{"Content-Type": {ct}, "Authorization": auth})
				refused := resp.StatusCode == 401 || resp.Header.Get("Grpc-Status") == "16" || resp.Trailer.Get("Grpc-Status") == "16" || strings.Contains(body, "grpc-status: 16")
				if !refused {
					t.Errorf("POST %s as %q with %d credentials: %d %v", path, ct, len(auth), resp.StatusCode, resp.Header)
				}
			}
		}
	}
}

func TestUnknownPathsAreDeniedToAdministrators(t *testing.T) {
	s := newTestServer(t)
	for _, path := range paths()[:9] {
		resp, body := s.do(t, "POST", path, "{}", http.Header{"Content-Type": {"application/json"}, "Authorization": {"Bearer " + s.admin}})
		if resp.StatusCode != 403 && resp.StatusCode != 404 {
			t.Errorf("POST %s: %d %s", path, resp.StatusCode, body)
		}
	}
}

func TestBodies(t *testing.T) {
	s := newTestServer(t)
	const path = "/zonemint.v1.TokenService/IssueZoneToken"
	good := `{"zone":"west","validFor":"3600s"}`
	big := `{"zone":"` + strings.Repeat("a", 1<<20) + `"}`
	for name, c := range map[string]struct {
		ct, body string
		want     int
	}{
		"good": {"application/json", good, 200}, "not JSON": {"application/json", "{", 400}, "other JSON": {"application/json", "[]", 400},
		"unknown field": {"application/json", `{"zone":"west","color":1}`, 400}, "wrong type": {"application/json", `{"zone":1}`, 400},
		"duplicate": {"application/json", `{"zone":"west","zone":"east"}`, 400}, "not UTF-8": {"application/json", "{\"zone\":\"\xff\"}", 400},
		"nothing": {"application/json", "", 400}, "two values": {"application/json", good + good, 400},
		"huge duration": {"application/json", `{"zone":"west","validFor":"999999999999999s"}`, 400},
		"not protobuf":  {"application/proto", "\xff\xff", 400}, "too large": {"application/json", big, 429},
		"content type": {"text/plain", good, 415}, "no content type": {"", good, 415}, "form": {"application/x-www-form-urlencoded", "zone=west", 415},
	} {
		resp, body := s.do(t, "POST", path, c.body, http.Header{"Content-Type": {c.ct}, "Authorization": {"Bearer " + s.admin}})
		if resp.StatusCode != c.want {
			t.Errorf("%s: %d %.200s, want %d", name, resp.StatusCode, body, c.want)
		}
		if c.want == 200 && (resp.Header.Get("Cache-Control") != "no-store" || !strings.Contains(body, `"token":"eyJ`)) {
			t.Errorf("%s: %v", name, resp.Header)
		}
	}
	if resp, _ := s.do(t, "GET", path, "", http.Header{"Authorization": {"Bearer " + s.admin}}); resp.StatusCode != 405 {
		t.Errorf("GET of a procedure: %d", resp.StatusCode)
	}
}

// What answers to strangers reads no more than it has to.
func TestStrangersCannotSendMuch(t *testing.T) {
	s := newTestServer(t)
	body := `{"service":"` + strings.Repeat("a", 2<<20) + `"}`
	resp, answer := s.do(t, "POST", "/grpc.health.v1.Health/Check", body, http.Header{"Content-Type": {"application/json"}})
	if resp.StatusCode != 429 {
		t.Errorf("%d %.100s", resp.StatusCode, answer)
	}
	resp, answer = s.do(t, "POST", "/grpc.health.v1.Health/Check", "{}", http.Header{"Content-Type": {"application/json"}})
	if resp.StatusCode != 200 || !strings.Contains(answer, "SERVING") {
		t.Errorf("%d %.100s", resp.StatusCode, answer)
	}
}

func TestAPITokensThatAreNoGood(t *testing.T) {
	s := newTestServer(t)
	revoked := s.apiToken(t, store.APIToken{Name: "revoked", Roles: []string{"issuer"}})
	expired, _, err := caller.Create(t.Context(), s.db, store.APIToken{Name: "old", Roles: []string{"issuer"}}, time.Millisecond, store.Actor{Name: "x"})
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond)
	who := must(s.as(revoked).callers.WhoAmI(t.Context(), &pb.WhoAmIRequest{}))
	must(s.as(s.admin).callers.RevokeApiToken(t.Context(), &pb.RevokeApiTokenRequest{Id: who.GetApiToken().GetId()}))
	for token, text := range map[string]string{revoked: "was revoked", expired: "expired at", s.admin[:len(s.admin)-1] + "1": "not an API token"} {
		for _, c := range s.wires(token) {
			_, err := c.tokens.IssueZoneToken(t.Context(), &pb.IssueZoneTokenRequest{Zone: "west", ValidFor: hour()})
			wantCode(t, err, connect.CodeUnauthenticated)
			if err != nil && !strings.Contains(err.Error(), text) {
				t.Errorf("%s: %v", c.name, err)
			}
			_, err = c.callers.WhoAmI(t.Context(), &pb.WhoAmIRequest{})
			wantCode(t, err, connect.CodeUnauthenticated)
		}
	}
}

// A replica that remembers an API token must not issue for it once another
// replica has revoked it.
func TestRevokedAtOnceOnEveryReplica(t *testing.T) {
	w := newWorld(t)
	a, b := w.start(t, w.config(), zoneKeyset()), w.start(t, w.config())
	token := w.apiToken(t, store.APIToken{Name: "ci", Roles: []string{"issuer"}})
	for _, s := range []*server{a, b} {
		if _, err := s.issue(t, token); err != nil {
			t.Fatal(err)
		}
	}
	who := must(a.as(token).callers.WhoAmI(t.Context(), &pb.WhoAmIRequest{}))
	must(a.as(w.admin).callers.RevokeApiToken(t.Context(), &pb.RevokeApiTokenRequest{Id: who.GetApiToken().GetId()}))
	for _, s := range []*server{b, a} {
		for range 2 {
			_, err := s.issue(t, token)
			wantCode(t, err, connect.CodeUnauthenticated)
		}
		batch, err := s.as(token).tokens.IssueTokens(t.Context(), &pb.IssueTokensRequest{Items: []*pb.IssueTokensItem{zoneItem("west")}})
		wantCode(t, err, connect.CodeUnauthenticated)
		if batch != nil {
			t.Errorf("a batch: %v", batch)
		}
	}
}

// Where no ledger row is written, nothing is remembered of an API token.
func TestRevokedAtOnceForOtherMethods(t *testing.T) {
	w := newWorld(t)
	a, b := w.start(t, w.config(), zoneKeyset()), w.start(t, w.config())
	token := w.apiToken(t, store.APIToken{Name: "ci", Roles: []string{"issuer"}})
	issued := must(b.issue(t, token))
	who := must(b.as(token).callers.WhoAmI(t.Context(), &pb.WhoAmIRequest{}))
	must(a.as(w.admin).callers.RevokeApiToken(t.Context(), &pb.RevokeApiTokenRequest{Id: who.GetApiToken().GetId()}))
	_, err := b.as(token).tokens.VerifyToken(t.Context(), &pb.VerifyTokenRequest{Token: issued.GetToken()})
	wantCode(t, err, connect.CodeUnauthenticated)
	_, err = b.as(token).keys.ListKeysets(t.Context(), &pb.ListKeysetsRequest{})
	wantCode(t, err, connect.CodeUnauthenticated)
}

func zoneItem(zone string) *pb.IssueTokensItem {
	return &pb.IssueTokensItem{Profile: &pb.IssueTokensItem_Zone{Zone: &pb.IssueZoneTokenRequest{Zone: zone, ValidFor: hour()}}}
}

// Behind a proxy that takes a prefix off, as kumactl's --address allows.
func TestBehindAPrefix(t *testing.T) {
	s := newTestServer(t)
	mux := http.NewServeMux()
	mux.Handle("/mesh/", http.StripPrefix("/mesh", s.Handler()))
	for path, want := range map[string]int{"/mesh/": 200, "/mesh": 307, "/mesh/keysets/zone/jwks.json": 200, "/mesh/nosuch": 401} {
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if w.Code != want {
			t.Errorf("GET %s: %d, want %d", path, w.Code, want)
		}
	}
}
