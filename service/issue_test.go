package service_test

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/uuid"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/store"
	"github.com/zonemint/zonemint/token"
)

// part decodes a part of a token.
func part(t testing.TB, raw string, i int) string {
	t.Helper()
	parts := strings.Split(raw, ".")
	if len(parts) != 3 {
		t.Fatalf("a token of %d parts", len(parts))
	}
	b, err := base64.RawURLEncoding.DecodeString(parts[i])
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestIssueZoneToken(t *testing.T) {
	s := newTestServer(t)
	for _, c := range s.wires(s.admin) {
		t.Run(c.name, func(t *testing.T) {
			for scopes, want := range map[string]string{
				"": `["ingress","egress"]`, "cp": `["cp"]`, "egress,cp": `["egress","cp"]`,
			} {
				req := &pb.IssueZoneTokenRequest{Zone: "west", ValidFor: durationpb.New(90 * time.Minute)}
				if scopes != "" {
					req.Scopes = strings.Split(scopes, ",")
				}
				before := time.Now()
				resp, err := c.tokens.IssueZoneToken(t.Context(), req)
				if err != nil {
					t.Fatal(err)
				}
				checkToken(t, s, resp, want, before, 90*time.Minute)
			}
		})
	}
}

// checkToken checks a token to the byte, and its row in the ledger.
func checkToken(t *testing.T, s *server, resp *pb.IssueZoneTokenResponse, scopes string, before time.Time, validFor time.Duration) {
	t.Helper()
	if want := fmt.Sprintf(`{"alg":"ES256","kid":%q,"typ":"JWT"}`, resp.GetKid()); part(t, resp.GetToken(), 0) != want {
		t.Errorf("header %s, want %s", part(t, resp.GetToken(), 0), want)
	}
	exp := resp.GetExpiresAt().AsTime()
	row, err := s.db.Issuance(t.Context(), uuid.MustParse(resp.GetJti()))
	if err != nil {
		t.Fatal(err)
	}
	stamp := row.IssuedAt.Add(-5 * time.Second).Unix()
	want := fmt.Sprintf(`{"Zone":"west","Scope":%s,"exp":%d,"nbf":%d,"iat":%d,"jti":%q}`, scopes, exp.Unix(), stamp, stamp, resp.GetJti())
	if got := part(t, resp.GetToken(), 1); got != want {
		t.Errorf("claims\n%s, want\n%s", got, want)
	}
	if row.IssuedAt.Before(before.Add(-time.Second)) || row.IssuedAt.After(time.Now().Add(time.Second)) || exp != row.IssuedAt.Add(validFor).Truncate(time.Second) {
		t.Errorf("issued at %s, expires at %s", row.IssuedAt, exp)
	}
	if row.Subject != "west" || row.Scopes != scopes || !row.ExpiresAt.Equal(exp) || !strings.HasPrefix(row.Caller, "api-token/") || row.Serial != 1 {
		t.Errorf("the ledger has %+v", row)
	}
	if row.JTI.Version() != 7 || !strings.HasPrefix(resp.GetKid(), "zone-1-") {
		t.Errorf("jti %s, kid %s", row.JTI, resp.GetKid())
	}
	verifier := must(token.NewVerifier[token.ZoneClaims](must(token.FetchKeySet(t.Context(), s.url+"/.well-known/jwks.json", token.RemoteOptions{})), token.Options{}))
	if got, err := verifier.Verify(t.Context(), resp.GetToken()); err != nil || got.Claims.Zone != "west" {
		t.Errorf("a zone says %v", err)
	}
}

func TestVerifiersFollowTheServedKeys(t *testing.T) {
	s := newTestServer(t)
	keys := must(token.NewRemoteKeys(s.url+"/keysets/zone/jwks.json", token.RemoteOptions{}))
	go func() { _ = keys.Run(t.Context()) }()
	v := must(token.NewVerifier[token.ZoneClaims](keys, token.Options{}))
	resp := must(s.issue(t, s.admin))
	if _, err := v.Verify(t.Context(), resp.GetToken()); err != nil {
		t.Error(err)
	}
	if _, err := v.Verify(t.Context(), resp.GetToken()[:len(resp.GetToken())-8]+"AAAAAAAA"); token.Reason(err) != "signature" && token.Reason(err) != "malformed" {
		t.Errorf("a forged token: %v", err)
	}
}

func TestDefaultsOfTheKeyset(t *testing.T) {
	w := newWorld(t)
	ks := zoneKeyset()
	ks.DefaultValidFor, ks.Backdate = durationpb.New(10*time.Minute), durationpb.New(0)
	cfg := w.config()
	cfg.Issuer = "https://tokens.example.com/"
	s := w.start(t, cfg, ks)
	resp, err := s.as(s.admin).tokens.IssueZoneToken(t.Context(), &pb.IssueZoneTokenRequest{Zone: "west"})
	if err != nil {
		t.Fatal(err)
	}
	row := must(s.db.Issuance(t.Context(), uuid.MustParse(resp.GetJti())))
	want := fmt.Sprintf(`{"Zone":"west","Scope":["ingress","egress"],"exp":%d,"nbf":%d,"iat":%d,"jti":%q,"iss":"https://tokens.example.com/"}`,
		row.IssuedAt.Add(10*time.Minute).Unix(), row.IssuedAt.Unix(), row.IssuedAt.Unix(), resp.GetJti())
	if got := part(t, resp.GetToken(), 1); got != want {
		t.Errorf("claims\n%s, want\n%s", got, want)
	}
	_, body := s.get(t, "/.well-known/openid-configuration")
	if want := `{"id_token_signing_alg_values_supported":["ES256"],"issuer":"https://tokens.example.com/",` +
		`"jwks_uri":"https://tokens.example.com/.well-known/jwks.json","response_types_supported":["id_token"],` +
		`"subject_types_supported":["public"]}`; strings.TrimSpace(body) != want {
		t.Errorf("discovery says %s", body)
	}
}

// badRequest is a request for a zone token and what is said of it.
type badRequest struct {
	req  *pb.IssueZoneTokenRequest
	code connect.Code
	text string
}

func badRequests() map[string]badRequest {
	zone := func(name string) *pb.IssueZoneTokenRequest {
		return &pb.IssueZoneTokenRequest{Zone: name, ValidFor: hour()}
	}
	scopes := func(list ...string) *pb.IssueZoneTokenRequest {
		return &pb.IssueZoneTokenRequest{Zone: "west", Scopes: list, ValidFor: hour()}
	}
	lasting := func(d *durationpb.Duration) *pb.IssueZoneTokenRequest {
		return &pb.IssueZoneTokenRequest{Zone: "west", ValidFor: d}
	}
	of := func(keyset string) *pb.IssueZoneTokenRequest {
		return &pb.IssueZoneTokenRequest{Zone: "west", ValidFor: hour(), Keyset: keyset}
	}
	bad := connect.CodeInvalidArgument
	return map[string]badRequest{
		"zone empty":       {zone(""), bad, "zone: must be a zone name"},
		"zone too long":    {zone(strings.Repeat("a", 64)), bad, "zone: must be a zone name"},
		"zone upper case":  {zone("West"), bad, "zone: must be a zone name"},
		"zone with dot":    {zone("a.b"), bad, "zone: must be a zone name"},
		"zone dash first":  {zone("-a"), bad, "zone: must be a zone name"},
		"zone dash last":   {zone("a-"), bad, "zone: must be a zone name"},
		"zone line break":  {zone("west\n"), bad, "zone: must be a zone name"},
		"zone wildcard":    {zone("w*"), bad, "zone: must be a zone name"},
		"zone quote":       {zone(`a","Zone":"b`), bad, "zone: must be a zone name"},
		"zone not ascii":   {zone("wést"), bad, "zone: must be a zone name"},
		"scope unknown":    {scopes("admin"), bad, "scopes[0]"},
		"scope empty":      {scopes(""), bad, "scopes[0]"},
		"scope twice":      {scopes("cp", "cp"), bad, "scopes: "},
		"scopes too many":  {scopes("cp", "ingress", "egress", "cp"), bad, "scopes: "},
		"lifetime missing": {lasting(nil), bad, "valid_for: is required"},
		"lifetime zero":    {lasting(durationpb.New(0)), bad, "valid_for"},
		"lifetime minus":   {lasting(durationpb.New(-time.Hour)), bad, "valid_for"},
		"lifetime short":   {lasting(durationpb.New(time.Second - 1)), bad, "valid_for"},
		"lifetime long":    {lasting(durationpb.New(720*time.Hour + 1)), bad, "allows 720h0m0s at the most"},
		"lifetime endless": {lasting(&durationpb.Duration{Seconds: 315576000000}), bad, "valid_for"},
		"keyset unknown":   {of("nosuch"), connect.CodeNotFound, `no such keyset: "nosuch"`},
		"keyset too long":  {of(strings.Repeat("a", 101)), bad, "keyset"},
		"keyset of users":  {of("user"), bad, `"user" is for user tokens, not for zone tokens`},
	}
}

func TestBadRequests(t *testing.T) {
	w := newWorld(t)
	s := w.start(t, w.config(), zoneKeyset(), &pb.Keyset{Name: "user", Profile: pb.Profile_PROFILE_USER, Algorithm: "ES256"})
	for _, c := range s.wires(s.admin) {
		for name, bad := range badRequests() {
			t.Run(c.name+"/"+name, func(t *testing.T) {
				resp, err := c.tokens.IssueZoneToken(t.Context(), bad.req)
				wantCode(t, err, bad.code)
				if resp != nil || err == nil || !strings.Contains(err.Error(), bad.text) {
					t.Errorf("%v, want it to say %q", err, bad.text)
				}
				items := []*pb.IssueTokensItem{{Profile: &pb.IssueTokensItem_Zone{Zone: bad.req}}}
				batch, berr := c.tokens.IssueTokens(t.Context(), &pb.IssueTokensRequest{Items: items})
				if berr != nil {
					t.Fatal(berr)
				}
				item := batch.GetResults()[0].GetError()
				if item.GetCode() != bad.code.String() || err.Error() != item.GetCode()+": "+item.GetMessage() {
					t.Errorf("as an item it says %v, alone %v", item, err)
				}
			})
		}
	}
}

func TestNarrowedCallers(t *testing.T) {
	s := newTestServer(t)
	narrow := s.apiToken(t, store.APIToken{
		Name: "ci", Roles: []string{"issuer"}, Keysets: []string{"zone"}, Zones: []string{"west", "lab-*"},
		Scopes: []string{"cp"}, MaxValidFor: time.Hour,
	})
	for name, c := range map[string]struct {
		req   *pb.IssueZoneTokenRequest
		allow bool
	}{
		"within":         {&pb.IssueZoneTokenRequest{Zone: "west", Scopes: []string{"cp"}, ValidFor: hour()}, true},
		"prefix":         {&pb.IssueZoneTokenRequest{Zone: "lab-1", Scopes: []string{"cp"}, ValidFor: hour()}, true},
		"other zone":     {&pb.IssueZoneTokenRequest{Zone: "east", Scopes: []string{"cp"}, ValidFor: hour()}, false},
		"default scopes": {&pb.IssueZoneTokenRequest{Zone: "west", ValidFor: hour()}, false},
		"too long":       {&pb.IssueZoneTokenRequest{Zone: "west", Scopes: []string{"cp"}, ValidFor: durationpb.New(time.Hour + time.Second)}, false},
		"other keyset":   {&pb.IssueZoneTokenRequest{Zone: "west", Scopes: []string{"cp"}, ValidFor: hour(), Keyset: "nosuch"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := s.as(narrow).tokens.IssueZoneToken(t.Context(), c.req)
			batch := must(s.as(narrow).tokens.IssueTokens(t.Context(), &pb.IssueTokensRequest{
				Items: []*pb.IssueTokensItem{{Profile: &pb.IssueTokensItem_Zone{Zone: c.req}}},
			}))
			if c.allow != (err == nil) || c.allow != (batch.GetResults()[0].GetToken() != nil) {
				t.Errorf("alone %v, in a batch %v", err, batch.GetResults()[0].GetError())
			}
			if !c.allow {
				wantCode(t, err, connect.CodePermissionDenied)
			}
		})
	}
}

func TestIssueTokens(t *testing.T) {
	s := newTestServer(t)
	items := make([]*pb.IssueTokensItem, 1000)
	for i := range items {
		items[i] = &pb.IssueTokensItem{Profile: &pb.IssueTokensItem_Zone{
			Zone: &pb.IssueZoneTokenRequest{Zone: fmt.Sprint("z-", i), ValidFor: hour()},
		}}
	}
	items[7] = &pb.IssueTokensItem{}
	items[500].GetZone().Zone = "NO"
	resp, err := s.as(s.admin).tokens.IssueTokens(t.Context(), &pb.IssueTokensRequest{Items: items})
	if err != nil || len(resp.GetResults()) != 1000 {
		t.Fatalf("%d results, %v", len(resp.GetResults()), err)
	}
	seen := map[string]bool{}
	for i, r := range resp.GetResults() {
		if i == 7 || i == 500 {
			if r.GetError().GetCode() != "invalid_argument" || r.GetToken() != nil {
				t.Errorf("item %d: %v", i, r)
			}
			continue
		}
		tok := r.GetToken()
		if !strings.HasPrefix(part(t, tok.GetToken(), 1), fmt.Sprintf(`{"Zone":"z-%d",`, i)) || seen[tok.GetJti()] {
			t.Errorf("item %d has another one's token: %v", i, r.GetError())
		}
		seen[tok.GetJti()] = true
		row, err := s.db.Issuance(t.Context(), uuid.MustParse(tok.GetJti()))
		if err != nil || row.Subject != fmt.Sprint("z-", i) {
			t.Fatalf("item %d: the ledger has %q, %v", i, row.Subject, err)
		}
	}
	for _, n := range []int{0, 1001} {
		_, err := s.as(s.admin).tokens.IssueTokens(t.Context(), &pb.IssueTokensRequest{Items: make([]*pb.IssueTokensItem, n)})
		wantCode(t, err, connect.CodeInvalidArgument)
	}
}
