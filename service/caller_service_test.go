package service_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/uuid"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/store"
)

func TestCreateApiToken(t *testing.T) {
	s := newTestServer(t)
	for _, c := range s.wires(s.admin) {
		resp, err := c.callers.CreateApiToken(t.Context(), &pb.CreateApiTokenRequest{
			Name: "ci-west", Roles: []string{"issuer"}, Zones: []string{"west"}, MaxValidFor: durationpb.New(90*time.Second + 7),
		})
		if err != nil {
			t.Fatal(err)
		}
		made := resp.GetApiToken()
		if life := made.GetExpiresAt().AsTime().Sub(made.GetCreatedAt().AsTime()); life != 90*24*time.Hour {
			t.Errorf("%s: valid for %s", c.name, life)
		}
		if made.GetMaxValidFor().AsDuration() != 90*time.Second || made.GetRevokedAt() != nil || !strings.HasPrefix(made.GetCreatedBy(), "api-token/") {
			t.Errorf("%s: %v", c.name, made)
		}
		who, err := s.as(resp.GetToken()).callers.WhoAmI(t.Context(), &pb.WhoAmIRequest{})
		if err != nil || who.GetCaller() != "api-token/"+made.GetId() || who.GetApiToken().GetName() != "ci-west" {
			t.Errorf("%s: %v, %v", c.name, who, err)
		}
		want := []string{
			"zonemint.v1.CallerService/WhoAmI", "zonemint.v1.KeyService/GetSigningKey", "zonemint.v1.KeyService/ListKeysets", "zonemint.v1.KeyService/ListSigningKeys",
			"zonemint.v1.LegacyKeyService/VerifyLegacyToken", "zonemint.v1.TokenService/IssueControlPlaneToken",
			"zonemint.v1.TokenService/IssueDataplaneToken", "zonemint.v1.TokenService/IssueTokens", "zonemint.v1.TokenService/IssueUserToken",
			"zonemint.v1.TokenService/IssueZoneIngressToken", "zonemint.v1.TokenService/IssueZoneToken", "zonemint.v1.TokenService/VerifyToken",
		}
		got := slices.DeleteFunc(who.GetMethods(), func(m string) bool { return strings.HasPrefix(m, "grpc.") })
		if !slices.Equal(got, want) {
			t.Errorf("%s: may call %q", c.name, got)
		}
	}
}

func TestCreateApiTokenRefuses(t *testing.T) {
	s := newTestServer(t)
	for name, req := range map[string]*pb.CreateApiTokenRequest{
		"no name":           {Roles: []string{"issuer"}},
		"bad name":          {Name: "A b", Roles: []string{"issuer"}},
		"no role":           {Name: "x"},
		"unknown role":      {Name: "x", Roles: []string{"root"}},
		"role twice":        {Name: "x", Roles: []string{"issuer", "issuer"}},
		"every zone":        {Name: "x", Roles: []string{"issuer"}, Zones: []string{"*"}},
		"star inside":       {Name: "x", Roles: []string{"issuer"}, Zones: []string{"a*b"}},
		"dataplanes, zones": {Name: "x", Roles: []string{"issuer"}, Dataplanes: []string{"d"}, Zones: []string{"z"}},
		"dataplanes, scope": {Name: "x", Roles: []string{"issuer"}, Dataplanes: []string{"d"}, Scopes: []string{"cp"}},
		"dataplanes, admin": {Name: "x", Roles: []string{"admin"}, Dataplanes: []string{"d"}},
		"dataplanes, roles": {Name: "x", Roles: []string{"issuer", "revoker"}, Dataplanes: []string{"d"}},
		"every dataplane":   {Name: "x", Roles: []string{"issuer"}, Dataplanes: []string{"*"}},
		"unknown scope":     {Name: "x", Roles: []string{"issuer"}, Scopes: []string{"all"}},
		"lifetime zero":     {Name: "x", Roles: []string{"issuer"}, ExpiresIn: durationpb.New(0)},
		"lifetime minus":    {Name: "x", Roles: []string{"issuer"}, ExpiresIn: durationpb.New(-time.Hour)},
		"eleven years":      {Name: "x", Roles: []string{"issuer"}, ExpiresIn: durationpb.New(11 * 366 * 24 * time.Hour)},
		"bound of nought":   {Name: "x", Roles: []string{"issuer"}, MaxValidFor: durationpb.New(0)},
	} {
		resp, err := s.as(s.admin).callers.CreateApiToken(t.Context(), req)
		wantCode(t, err, connect.CodeInvalidArgument)
		if resp != nil {
			t.Errorf("%s: a token was made", name)
		}
	}
}

// An administrator that is narrowed can neither widen itself nor touch others.
func TestNarrowedAdministrator(t *testing.T) {
	s := newTestServer(t)
	narrow := s.as(s.apiToken(t, store.APIToken{Name: "narrow", Roles: []string{"admin"}, Keysets: []string{"zone/eu"}, Zones: []string{"eu-*"}, MaxValidFor: time.Hour}))
	within := func() *pb.CreateApiTokenRequest {
		return &pb.CreateApiTokenRequest{Name: "child", Roles: []string{"issuer"}, Keysets: []string{"zone/eu"}, Zones: []string{"eu-1*"}, MaxValidFor: hour()}
	}
	if _, err := narrow.callers.CreateApiToken(t.Context(), within()); err != nil {
		t.Error(err)
	}
	for name, widen := range map[string]func(*pb.CreateApiTokenRequest){
		"all keysets": func(r *pb.CreateApiTokenRequest) { r.Keysets = nil }, "all zones": func(r *pb.CreateApiTokenRequest) { r.Zones = nil },
		"other keyset": func(r *pb.CreateApiTokenRequest) { r.Keysets = []string{"zone"} }, "wider": func(r *pb.CreateApiTokenRequest) { r.Zones = []string{"eu*"} },
		"no bound": func(r *pb.CreateApiTokenRequest) { r.MaxValidFor = nil }, "longer": func(r *pb.CreateApiTokenRequest) { r.MaxValidFor = durationpb.New(2 * time.Hour) },
	} {
		req := within()
		widen(req)
		_, err := narrow.callers.CreateApiToken(t.Context(), req)
		if connect.CodeOf(err) != connect.CodePermissionDenied {
			t.Errorf("%s: %v", name, err)
		}
	}
	victim := must(s.as(s.admin).callers.WhoAmI(t.Context(), &pb.WhoAmIRequest{})).GetApiToken().GetId()
	_, err := narrow.callers.RevokeApiToken(t.Context(), &pb.RevokeApiTokenRequest{Id: victim})
	wantCode(t, err, connect.CodePermissionDenied)

	list := must(narrow.callers.ListApiTokens(t.Context(), &pb.ListApiTokensRequest{}))
	var names []string
	for _, token := range list.GetApiTokens() {
		names = append(names, token.GetName())
	}
	if !slices.Equal(names, []string{"child", "narrow"}) {
		t.Errorf("it sees %q", names)
	}
	_, err = narrow.keys.CreateKeyset(t.Context(), &pb.CreateKeysetRequest{Keyset: &pb.Keyset{Name: "user", Profile: pb.Profile_PROFILE_USER}})
	wantCode(t, err, connect.CodePermissionDenied)
	if keysets := must(narrow.keys.ListKeysets(t.Context(), &pb.ListKeysetsRequest{})); len(keysets.GetKeysets()) != 0 {
		t.Errorf("it sees %v", keysets)
	}
	_, err = narrow.keys.ListSigningKeys(t.Context(), &pb.ListSigningKeysRequest{Keyset: "zone"})
	wantCode(t, err, connect.CodePermissionDenied)
}

func TestListApiTokens(t *testing.T) {
	s := newTestServer(t)
	want := []string{"admin"}
	for i := range 5 {
		name := fmt.Sprint("t", i)
		s.apiToken(t, store.APIToken{Name: name, Roles: []string{"auditor"}})
		want = slices.Insert(want, 0, name)
	}
	var got []string
	req := &pb.ListApiTokensRequest{PageSize: 2}
	for {
		resp := must(s.as(s.admin).callers.ListApiTokens(t.Context(), req))
		for _, token := range resp.GetApiTokens() {
			got = append(got, token.GetName())
		}
		if req.PageToken = resp.GetNextPageToken(); req.GetPageToken() == "" {
			break
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	for _, bad := range []*pb.ListApiTokensRequest{{PageSize: -1}, {PageSize: 1001}, {PageToken: "x"}} {
		_, err := s.as(s.admin).callers.ListApiTokens(t.Context(), bad)
		wantCode(t, err, connect.CodeInvalidArgument)
	}
}

func TestRevokeApiToken(t *testing.T) {
	s := newTestServer(t)
	token := s.apiToken(t, store.APIToken{Name: "ci", Roles: []string{"issuer"}})
	id := must(s.as(token).callers.WhoAmI(t.Context(), &pb.WhoAmIRequest{})).GetApiToken().GetId()
	first := must(s.as(s.admin).callers.RevokeApiToken(t.Context(), &pb.RevokeApiTokenRequest{Id: id}))
	again := must(s.as(s.admin).callers.RevokeApiToken(t.Context(), &pb.RevokeApiTokenRequest{Id: id}))
	if first.GetApiToken().GetRevokedAt() == nil || !first.GetApiToken().GetRevokedAt().AsTime().Equal(again.GetApiToken().GetRevokedAt().AsTime()) {
		t.Errorf("%v, again %v", first, again)
	}
	_, err := s.as(s.admin).callers.RevokeApiToken(t.Context(), &pb.RevokeApiTokenRequest{Id: "0198c5f0-7a3e-7d5a-9b1c-2f4e6a8c0d1e"})
	wantCode(t, err, connect.CodeNotFound)
	_, err = s.as(s.admin).callers.RevokeApiToken(t.Context(), &pb.RevokeApiTokenRequest{Id: "x"})
	wantCode(t, err, connect.CodeInvalidArgument)
}

// TestListsDespiteTampering plants a row in the way that somebody would who can
// write to the database and has no instance key.
func TestListsDespiteTampering(t *testing.T) {
	s := newTestServer(t)
	planted := store.APIToken{
		ID: uuid.Must(uuid.NewV7()), Name: "planted", Hash: []byte("planted"), Roles: []string{"admin"},
		CreatedAt: time.Now(), ExpiresAt: time.Now().Add(time.Hour), Version: 1, MAC: []byte("made up"),
	}
	if err := s.engine.Update(t.Context(), func(tx store.Tx) error { return tx.InsertAPIToken(t.Context(), planted) }); err != nil {
		t.Fatal(err)
	}
	resp := must(s.as(s.admin).callers.ListApiTokens(t.Context(), &pb.ListApiTokensRequest{}))
	if len(resp.GetApiTokens()) != 1 || resp.GetApiTokens()[0].GetName() != "admin" {
		t.Errorf("the list has %v, want the one good row", resp.GetApiTokens())
	}
}
