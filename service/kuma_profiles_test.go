package service_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/uuid"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/store"
)

// newKumaServer is a replica with a keyset of each profile, as Kuma verifies them.
func newKumaServer(t testing.TB) *server {
	t.Helper()
	w := newWorld(t)
	cfg := w.config()
	cfg.Kuma.BasePath = "/mesh/kuma"
	return w.start(t, cfg, kumaKeysets()...)
}

func kumaKeysets() []*pb.Keyset {
	return []*pb.Keyset{
		{Name: "zone", Profile: pb.Profile_PROFILE_ZONE}, {Name: "user", Profile: pb.Profile_PROFILE_USER},
		{Name: "dataplane/default", Profile: pb.Profile_PROFILE_DATAPLANE},
		{Name: "dataplane/shop", Profile: pb.Profile_PROFILE_DATAPLANE, Mesh: "shop.eu"},
	}
}

// post sends what kumactl sends.
func (s *server) post(t *testing.T, token, path, body string) (*http.Response, string) {
	t.Helper()
	return s.do(t, "POST", path, body, http.Header{
		"Authorization": {"Bearer " + token}, "Content-Type": {"application/json"}, "User-Agent": {"kumactl/2.14.3 (linux; amd64; Kuma/unknown)"},
	})
}

// anonymised replaces what differs from token to token: times, the ID and the key.
func anonymised(t *testing.T, s *server, raw string) string {
	t.Helper()
	header, payload := part(t, raw, 0), part(t, raw, 1)
	_, jti, _ := strings.Cut(payload, `"jti":"`)
	jti, _, _ = strings.Cut(jti, `"`)
	row := must(s.db.Issuance(t.Context(), uuid.MustParse(jti)))
	stamp, exp := row.IssuedAt.Add(-5*time.Second).Unix(), row.ExpiresAt.Unix()
	if want := row.IssuedAt.Add(time.Hour).Unix(); exp != want {
		t.Errorf("expires at %d, want %d", exp, want)
	}
	_, kid, _ := strings.Cut(header, `"kid":"`)
	kid, _, _ = strings.Cut(kid, `"`)
	return strings.NewReplacer(
		jti, "JTI", kid, "KID", fmt.Sprintf(`"exp":%d`, exp), `"exp":EXP`,
		fmt.Sprintf(`"nbf":%d,"iat":%d`, stamp, stamp), `"nbf":IAT,"iat":IAT`,
	).Replace(header + "\n" + payload + "\n")
}

// What comes out is Kuma's, byte by byte, whichever way a token is asked for.
func TestTokensOfEveryProfile(t *testing.T) {
	s := newKumaServer(t)
	c := s.as(s.admin).tokens
	for name, ask := range map[string]struct {
		path, body string
		call       func() (interface{ GetToken() string }, error)
	}{
		"zone": {"/tokens/zone", `{"zone":"z1","scope":["ingress","egress"],"validFor":"1h0m0s"}`, func() (interface{ GetToken() string }, error) {
			return c.IssueZoneToken(t.Context(), &pb.IssueZoneTokenRequest{Zone: "z1", ValidFor: hour()})
		}},
		"zone-cp": {"/tokens/zone", `{"zone":"z1","scope":["cp"],"validFor":"1h"}`, func() (interface{ GetToken() string }, error) {
			return c.IssueZoneToken(t.Context(), &pb.IssueZoneTokenRequest{Zone: "z1", Scopes: []string{"cp"}, ValidFor: hour()})
		}},
		"dataplane": {
			"/tokens/dataplane", `{"name":"d1","mesh":"default","tags":{"kuma.io/service":["b","a","b"],"a":["x"]},"type":"","workload":"w","validFor":"1h0m0s"}`,
			func() (interface{ GetToken() string }, error) {
				return c.IssueDataplaneToken(t.Context(), &pb.IssueDataplaneTokenRequest{
					Mesh: "default", Name: "d1", Workload: "w", ValidFor: hour(),
					Tags: map[string]*pb.TagValues{"kuma.io/service": {Values: []string{"a", "b"}}, "a": {Values: []string{"x"}}},
				})
			},
		},
		"dataplane-name": {
			"/tokens/dataplane", `{"name":"d1","mesh":"default","tags":null,"type":"dataplane","validFor":"1h0m0s"}`,
			func() (interface{ GetToken() string }, error) {
				return c.IssueDataplaneToken(t.Context(), &pb.IssueDataplaneTokenRequest{
					Mesh: "default", Name: "d1", Type: "dataplane", ValidFor: hour(), Keyset: "dataplane/default",
				})
			},
		},
		"dataplane-other-mesh": {
			"/tokens/dataplane", `{"mesh":"shop.eu","workload":"w","validFor":"1h0m0s"}`,
			func() (interface{ GetToken() string }, error) {
				return c.IssueDataplaneToken(t.Context(), &pb.IssueDataplaneTokenRequest{Mesh: "shop.eu", Workload: "w", ValidFor: hour()})
			},
		},
		"user": {"/tokens/user", `{"name":"jo@example.com","groups":["g1","Team B"],"validFor":"1h"}`, func() (interface{ GetToken() string }, error) {
			return c.IssueUserToken(t.Context(), &pb.IssueUserTokenRequest{Name: "jo@example.com", Groups: []string{"g1", "Team B"}, ValidFor: hour()})
		}},
		"user-alone": {"/tokens/user", `{"name":"u","validFor":"1h"}`, func() (interface{ GetToken() string }, error) {
			return c.IssueUserToken(t.Context(), &pb.IssueUserTokenRequest{Name: "u", ValidFor: hour()})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, base := range []string{"", "/mesh/kuma"} {
				resp, body := s.post(t, s.admin, base+ask.path, ask.body)
				if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/plain" {
					t.Fatalf("%d %v %s", resp.StatusCode, resp.Header, body)
				}
				golden(t, "token-"+name, anonymised(t, s, body))
			}
			resp, err := ask.call()
			if err != nil {
				t.Fatal(err)
			}
			golden(t, "token-"+name, anonymised(t, s, resp.GetToken()))
		})
	}
}

func TestKumaRefusalsOfOtherProfiles(t *testing.T) {
	s := newKumaServer(t)
	auditor := s.apiToken(t, store.APIToken{Name: "a", Roles: []string{"auditor"}})
	zones := s.apiToken(t, store.APIToken{Name: "z", Roles: []string{"issuer"}, Zones: []string{"d1"}})
	scopes := s.apiToken(t, store.APIToken{Name: "s", Roles: []string{"issuer"}, Scopes: []string{"cp"}})
	web := s.apiToken(t, store.APIToken{Name: "w", Roles: []string{"issuer"}, Dataplanes: []string{"web-*"}})
	other := s.apiToken(t, store.APIToken{Name: "k", Roles: []string{"issuer"}, Keysets: []string{"dataplane/shop"}})
	const good = `{"name":"d1","mesh":"default","validFor":"1h"}`
	for name, c := range map[string]struct {
		token, path, body string
		status            int
	}{
		"dataplane-unauthenticated": {"zmt_x", "dataplane", good, 401},
		"dataplane-role":            {auditor, "dataplane", good, 403},
		"dataplane-zones":           {zones, "dataplane", good, 403},
		"dataplane-scopes":          {scopes, "dataplane", good, 403},
		"dataplane-name":            {web, "dataplane", good, 403},
		"dataplane-nameless":        {web, "dataplane", `{"workload":"w","mesh":"default","validFor":"1h"}`, 403},
		"user-dataplanes":           {web, "user", `{"name":"web-1","validFor":"1h"}`, 403},
		"zone-dataplanes":           {web, "zone", `{"zone":"web-1","validFor":"1h"}`, 403},
		"dataplane-keyset":          {other, "dataplane", good, 403},
		"dataplane-faults-first":    {auditor, "dataplane", `{}`, 400},
		"dataplane-unbound":         {s.admin, "dataplane", `{"mesh":"default","tags":{},"validFor":"1h"}`, 400},
		"dataplane-no-mesh":         {s.admin, "dataplane", `{"name":"d1","mesh":"nosuch","validFor":"1h"}`, 404},
		"dataplane-other-mesh":      {s.admin, "dataplane", `{"name":"d1","mesh":"shop","validFor":"1h"}`, 400},
		"dataplane-faults": {s.admin, "dataplane", `{"name":"mesh-system:admin","mesh":"A_","tags":{"a b":["x"],"c":[],"d":["e f"]},"type":"ingress",` +
			`"workload":"W","validFor":"-1s"}`, 400},
		"user-role":      {auditor, "user", `{`, 403},
		"user-zones":     {zones, "user", `{"name":"d1","validFor":"1h"}`, 403},
		"user-empty":     {s.admin, "user", `{}`, 400},
		"user-lifetime":  {s.admin, "user", `{"name":"u"}`, 400},
		"user-system":    {s.admin, "user", `{"name":"mesh-system:admin","groups":["x","Mesh-System:admin"],"validFor":"1h"}`, 400},
		"user-invisible": {s.admin, "user", `{"name":" u","groups":["a\nb","","g","g"],"validFor":"1h"}`, 400},
	} {
		t.Run(name, func(t *testing.T) {
			resp, body := s.post(t, c.token, "/tokens/"+c.path, c.body)
			if resp.StatusCode != c.status || resp.Header.Get("Content-Type") != "application/json" {
				t.Errorf("%d %v", resp.StatusCode, resp.Header)
			}
			golden(t, name, body)
		})
	}
}

// Only administrators make administrators.
func TestMeshSystemNeedsAnAdministrator(t *testing.T) {
	s := newKumaServer(t)
	c := s.as(s.apiToken(t, store.APIToken{Name: "op", Roles: []string{"key-operator"}})).keys
	mask := &fieldmaskpb.FieldMask{Paths: []string{"allow_mesh_system"}}
	_, err := c.UpdateKeyset(t.Context(), &pb.UpdateKeysetRequest{Keyset: &pb.Keyset{Name: "user", AllowMeshSystem: true}, UpdateMask: mask})
	wantCode(t, err, connect.CodePermissionDenied)
	_, err = c.CreateKeyset(t.Context(), &pb.CreateKeysetRequest{
		Keyset: &pb.Keyset{Name: "staff", Profile: pb.Profile_PROFILE_USER, AllowMeshSystem: true},
	})
	wantCode(t, err, connect.CodePermissionDenied)
	must(c.UpdateKeyset(t.Context(), &pb.UpdateKeysetRequest{Keyset: &pb.Keyset{Name: "user"}, UpdateMask: mask})) // to take it away
}

// An API token for some dataplanes issues for them.
func TestNarrowedToDataplanes(t *testing.T) {
	s := newKumaServer(t)
	resp := must(s.as(s.admin).callers.CreateApiToken(t.Context(), &pb.CreateApiTokenRequest{
		Name: "web", Roles: []string{"issuer"}, Keysets: []string{"dataplane/default"}, Dataplanes: []string{"web-*"},
	}))
	if got := resp.GetApiToken().GetDataplanes(); len(got) != 1 || got[0] != "web-*" {
		t.Errorf("narrowed to %v", got)
	}
	c := s.as(resp.GetToken()).tokens
	for name, want := range map[string]connect.Code{"web-1": 0, "web": connect.CodePermissionDenied, "": connect.CodePermissionDenied} {
		_, err := c.IssueDataplaneToken(t.Context(), &pb.IssueDataplaneTokenRequest{Mesh: "default", Name: name, Workload: "w", ValidFor: hour()})
		if want == 0 && err != nil || want != 0 && connect.CodeOf(err) != want {
			t.Errorf("%q: %v, want %v", name, err, want)
		}
	}
}

// Scopes are of zone tokens: whoever is narrowed to some reaches no others.
func TestNarrowedToScopes(t *testing.T) {
	s := newKumaServer(t)
	user := must(s.as(s.admin).tokens.IssueUserToken(t.Context(), &pb.IssueUserTokenRequest{Name: "jo", ValidFor: hour()}))
	zone := s.issueFor(t, "", "jo")
	c := s.as(s.apiToken(t, store.APIToken{Name: "s", Roles: []string{"admin"}, Scopes: []string{"cp"}}))
	for name, call := range map[string]func(keyset, jti string) error{
		"revoke": func(_, jti string) error {
			_, err := c.revocations.RevokeToken(t.Context(), &pb.RevokeTokenRequest{Jti: jti, Reason: "r"})
			return err
		},
		"filter": func(keyset, _ string) error {
			_, err := c.revocations.RevokeTokens(t.Context(), &pb.RevokeTokensRequest{
				Filter: &pb.RevocationFilter{Keyset: keyset, Zone: "jo"}, DryRun: true, Reason: "r",
			})
			return err
		},
		"lift": func(keyset, jti string) error {
			must(s.as(s.admin).revocations.RevokeToken(t.Context(), &pb.RevokeTokenRequest{Jti: jti, Reason: "r"}))
			_, err := c.revocations.LiftRevocation(t.Context(), &pb.LiftRevocationRequest{Keyset: keyset, Jti: jti, Reason: "r"})
			return err
		},
		"list": func(keyset, _ string) error {
			_, err := c.audit.ListIssuances(t.Context(), &pb.ListIssuancesRequest{Keyset: keyset})
			return err
		},
	} {
		wantCode(t, call("user", user.GetJti()), connect.CodePermissionDenied)
		if name == "list" || name == "filter" {
			wantCode(t, call("", ""), connect.CodePermissionDenied)
		}
		if err := call("zone", zone.GetJti()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Kuma's API names no keyset: what is issued from is within the caller's bounds, and
// the name of no other gets into an answer.
func TestKeysetOfMeshWithinBounds(t *testing.T) {
	w := newWorld(t)
	s := w.start(t, w.config(), append(kumaKeysets(), &pb.Keyset{Name: "second", Profile: pb.Profile_PROFILE_DATAPLANE, Mesh: "shop.eu"})...)
	const ask = `{"name":"d1","mesh":"shop.eu","validFor":"1h"}`
	for keyset, status := range map[string]int{"dataplane/shop": 200, "second": 200, "dataplane/default": 403} {
		narrowed := s.apiToken(t, store.APIToken{Name: "n", Roles: []string{"issuer"}, Keysets: []string{keyset}})
		resp, body := s.post(t, narrowed, "/tokens/dataplane", ask)
		if resp.StatusCode != status || strings.Contains(body, "second") || strings.Contains(body, `dataplane/shop\"`) {
			t.Errorf("for %s: %d %s", keyset, resp.StatusCode, body)
		}
	}
}

// A keyset that says so issues tokens with the rights of administrators, and one
// that does not any longer stops.
func TestMeshSystem(t *testing.T) {
	s := newKumaServer(t)
	c := s.as(s.admin)
	admin := &pb.IssueUserTokenRequest{Name: "mesh-system:admin", Groups: []string{"mesh-system:admin"}, ValidFor: hour()}
	for _, allowed := range []bool{false, true, false} {
		must(c.keys.UpdateKeyset(t.Context(), &pb.UpdateKeysetRequest{
			Keyset: &pb.Keyset{Name: "user", AllowMeshSystem: allowed}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"allow_mesh_system"}},
		}))
		if _, err := c.tokens.IssueUserToken(t.Context(), admin); (err == nil) != allowed {
			t.Errorf("allowed: %t, %v", allowed, err)
		}
	}
}

// A batch has tokens of every profile, and a bad item of any fails alone.
func TestBatchOfEveryProfile(t *testing.T) {
	s := newKumaServer(t)
	dataplane := func(r *pb.IssueDataplaneTokenRequest) *pb.IssueTokensItem {
		return &pb.IssueTokensItem{Profile: &pb.IssueTokensItem_Dataplane{Dataplane: r}}
	}
	user := func(r *pb.IssueUserTokenRequest) *pb.IssueTokensItem {
		return &pb.IssueTokensItem{Profile: &pb.IssueTokensItem_User{User: r}}
	}
	resp := must(s.as(s.admin).tokens.IssueTokens(t.Context(), &pb.IssueTokensRequest{Items: []*pb.IssueTokensItem{
		{Profile: &pb.IssueTokensItem_Zone{Zone: &pb.IssueZoneTokenRequest{Zone: "west", ValidFor: hour()}}},
		dataplane(&pb.IssueDataplaneTokenRequest{Mesh: "default", Name: "d1", ValidFor: hour()}),
		dataplane(&pb.IssueDataplaneTokenRequest{Mesh: "shop.eu", Workload: "w", ValidFor: hour(), Keyset: "dataplane/shop"}),
		user(&pb.IssueUserTokenRequest{Name: "jo", ValidFor: hour()}),
		dataplane(&pb.IssueDataplaneTokenRequest{Mesh: "default", ValidFor: hour()}),
		dataplane(&pb.IssueDataplaneTokenRequest{Mesh: "default", Name: "d1", ValidFor: hour(), Keyset: "zone"}),
		user(&pb.IssueUserTokenRequest{Name: "jo", ValidFor: durationpb.New(0)}),
		user(&pb.IssueUserTokenRequest{Name: "mesh-system:x", ValidFor: hour()}),
		{},
	}}))
	want := []string{"", "", "", "", "name: cannot be empty", `keyset: "zone" is for zone tokens, not for dataplane tokens`, "valid_for", `begins with "mesh-system:"`, "profile"}
	for i, r := range resp.GetResults() {
		if got := r.GetError().GetMessage(); (got == "") != (want[i] == "") || !strings.Contains(got, want[i]) {
			t.Errorf("item %d: %q, want %q", i, got, want[i])
		}
		if want[i] == "" && r.GetToken().GetToken() == "" {
			t.Errorf("item %d has no token", i)
		}
	}
}
