package service_test

import (
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/store"
)

func TestCreateKeyset(t *testing.T) {
	w := newWorld(t)
	s := w.start(t, w.config())
	for i, c := range s.wires(s.admin) {
		name := []string{"zone", "user", "dataplane/default", "a-b/c", "z"}[i]
		profile := []pb.Profile{1, 3, 2, 1, 1}[i]
		resp, err := c.keys.CreateKeyset(t.Context(), &pb.CreateKeysetRequest{Keyset: &pb.Keyset{Name: name, Profile: profile, Algorithm: "ES256"}})
		if err != nil {
			t.Fatal(err)
		}
		ks := resp.GetKeyset()
		if ks.GetName() != name || ks.GetProfile() != profile || ks.GetBackend() != "local" || ks.GetDistribution() != pb.Distribution_DISTRIBUTION_JWKS ||
			ks.GetMaxValidFor().AsDuration() != 720*time.Hour || ks.GetBackdate().AsDuration() != 5*time.Second {
			t.Errorf("%s: %v", c.name, ks)
		}
		checkKeys(t, name, resp.GetSigningKeys())
		listed := must(c.keys.ListSigningKeys(t.Context(), &pb.ListSigningKeysRequest{Keyset: name}))
		checkKeys(t, name, listed.GetSigningKeys())
		if r, body := s.get(t, "/keysets/"+name+"/jwks.json"); r.StatusCode != 200 || !strings.Contains(body, listed.GetSigningKeys()[1].GetKid()) {
			t.Errorf("%s: %d %s", name, r.StatusCode, body)
		}
		_, err = c.keys.CreateKeyset(t.Context(), &pb.CreateKeysetRequest{Keyset: &pb.Keyset{Name: name, Profile: profile, Algorithm: "ES256"}})
		wantCode(t, err, connect.CodeAlreadyExists)
	}
	if all := must(s.as(s.admin).keys.ListKeysets(t.Context(), &pb.ListKeysetsRequest{})); len(all.GetKeysets()) != 5 || all.GetKeysets()[0].GetName() != "a-b/c" {
		t.Errorf("%v", all)
	}
}

func checkKeys(t *testing.T, keyset string, keys []*pb.SigningKey) {
	t.Helper()
	if len(keys) != 2 || keys[0].GetState() != "active" || keys[1].GetState() != "published" || keys[0].GetKid() == keys[1].GetKid() {
		t.Fatalf("%s: %v", keyset, keys)
	}
	for _, k := range keys {
		block, rest := pem.Decode([]byte(k.GetPublicKey()))
		if block == nil || block.Type != "PUBLIC KEY" || len(rest) != 0 {
			t.Fatalf("%s: %q", k.GetKid(), k.GetPublicKey())
		}
		if _, err := x509.ParsePKIXPublicKey(block.Bytes); err != nil || !strings.HasPrefix(k.GetKid(), strings.ReplaceAll(keyset, "/", "-")+"-") {
			t.Errorf("%s: %v", k.GetKid(), err)
		}
	}
}

func TestCreateKeysetRefuses(t *testing.T) {
	s := newTestServer(t)
	good := func(change func(*pb.Keyset)) *pb.Keyset {
		ks := &pb.Keyset{Name: "other", Profile: pb.Profile_PROFILE_ZONE, Algorithm: "ES256"}
		change(ks)
		return ks
	}
	for name, ks := range map[string]*pb.Keyset{
		"nothing":         nil,
		"no name":         good(func(k *pb.Keyset) { k.Name = "" }),
		"three labels":    good(func(k *pb.Keyset) { k.Name = "a/b/c" }),
		"dots":            good(func(k *pb.Keyset) { k.Name = "../zone" }),
		"no profile":      good(func(k *pb.Keyset) { k.Profile = 0 }),
		"unknown profile": good(func(k *pb.Keyset) { k.Profile = 99 }),
		"algorithm":       good(func(k *pb.Keyset) { k.Algorithm = "HS256" }),
		"none":            good(func(k *pb.Keyset) { k.Algorithm = "none" }),
		"RSA of 1024":     good(func(k *pb.Keyset) { k.Algorithm = "RS256-1024" }),
		"backend":         good(func(k *pb.Keyset) { k.Backend = "nosuch" }),
		"backdate":        good(func(k *pb.Keyset) { k.Backdate = durationpb.New(time.Hour) }),
		"maximum of 0":    good(func(k *pb.Keyset) { k.MaxValidFor = durationpb.New(0) }),
		"default too long": good(func(k *pb.Keyset) {
			k.MaxValidFor, k.DefaultValidFor = hour(), durationpb.New(2*time.Hour)
		}),
	} {
		_, err := s.as(s.admin).keys.CreateKeyset(t.Context(), &pb.CreateKeysetRequest{Keyset: ks})
		if connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
	operator := s.as(s.apiToken(t, store.APIToken{Name: "o", Roles: []string{"key-operator"}, Keysets: []string{"zone"}}))
	_, err := operator.keys.CreateKeyset(t.Context(), &pb.CreateKeysetRequest{Keyset: good(func(*pb.Keyset) {})})
	wantCode(t, err, connect.CodePermissionDenied)
	_, err = s.as(s.admin).keys.ListSigningKeys(t.Context(), &pb.ListSigningKeysRequest{Keyset: "nosuch"})
	wantCode(t, err, connect.CodeNotFound)
}

func TestMetrics(t *testing.T) {
	s := newTestServer(t)
	must(s.issue(t, s.admin))
	_, err := s.as(s.admin).tokens.IssueZoneToken(t.Context(), &pb.IssueZoneTokenRequest{})
	wantCode(t, err, connect.CodeInvalidArgument)
	page := s.private("/metrics").Body.String()
	for _, want := range []string{
		`zonemint_request_duration_seconds_count{code="ok",method="/zonemint.v1.TokenService/IssueZoneToken"} 1`,
		`zonemint_request_duration_seconds_count{code="invalid_argument",method="/zonemint.v1.TokenService/IssueZoneToken"} 1`,
		"zonemint_ledger_commit_rows_count 1", "zonemint_ledger_waiting 0", "zonemint_lease_remaining_seconds 2", "zonemint_ring_generation ",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the metrics lack %s", want)
		}
	}
	if strings.Contains(page, "west") || s.private("/healthz/live").Body.String() != "ok\n" || s.private("/nosuch").Code != 404 {
		t.Error("the private port says too much or too little")
	}
}
