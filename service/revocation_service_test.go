package service_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/signer/signertest"
	"github.com/zonemint/zonemint/store"
)

// issueFor issues a token for a zone, as the administrator.
func (s *server) issueFor(t testing.TB, keyset, zone string) *pb.IssueZoneTokenResponse {
	t.Helper()
	return must(s.as(s.admin).tokens.IssueZoneToken(t.Context(), &pb.IssueZoneTokenRequest{Keyset: keyset, Zone: zone, ValidFor: hour()}))
}

// isRevoked asks the verifier.
func (s *server) isRevoked(t testing.TB, keyset, raw string) bool {
	t.Helper()
	resp := must(s.as(s.admin).tokens.VerifyToken(t.Context(), &pb.VerifyTokenRequest{Keyset: keyset, Token: raw}))
	if resp.GetValid() == (resp.GetReason() == "revoked") {
		t.Errorf("%v", resp)
	}
	return !resp.GetValid()
}

// keysetID returns the ID of a keyset.
func (w *world) keysetID(t testing.TB, name string) uuid.UUID {
	t.Helper()
	for _, ks := range must(w.db.LoadRing(t.Context())).Keysets {
		if ks.Name == name {
			return ks.ID
		}
	}
	t.Fatalf("no keyset %s", name)
	return uuid.Nil
}

func zoneAnd(names ...string) []*pb.Keyset {
	list := []*pb.Keyset{zoneKeyset()}
	for _, n := range names {
		profile := pb.Profile_PROFILE_ZONE
		if n == "user" {
			profile = pb.Profile_PROFILE_USER
		}
		list = append(list, &pb.Keyset{Name: n, Profile: profile, Algorithm: "ES256"})
	}
	return list
}

func TestRevokeToken(t *testing.T) {
	s := newTestServer(t)
	for _, c := range s.wires(s.admin) {
		one, other := s.issueFor(t, "", "west"), s.issueFor(t, "", "west")
		for i, req := range []*pb.RevokeTokenRequest{
			{Jti: one.GetJti(), Reason: "lost"}, {Token: other.GetToken(), Reason: "lost", Keyset: "zone"}, {Jti: strings.ToUpper(one.GetJti())},
			{Token: one.GetToken()}, {Jti: one.GetJti(), Keyset: "zone", ExpiresAt: timestamppb.Now()},
		} {
			issued := []*pb.IssueZoneTokenResponse{one, other, one, one, one}[i]
			resp, err := c.revocations.RevokeToken(t.Context(), req)
			if err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
			r := resp.GetRevocation()
			if r.GetJti() != issued.GetJti() || r.GetKeyset() != "zone" || !proto.Equal(r.GetExpiresAt(), issued.GetExpiresAt()) ||
				r.GetReason() != "lost" || !strings.HasPrefix(r.GetCaller(), "api-token/") || r.GetSeq() < 1 || r.GetLiftedAt() != nil || resp.GetExpired() {
				t.Errorf("%s: %v", c.name, r)
			}
			got := must(c.revocations.GetRevocation(t.Context(), &pb.GetRevocationRequest{Keyset: "zone", Jti: issued.GetJti()}))
			if !proto.Equal(got.GetRevocation(), r) {
				t.Errorf("%s: %v, was %v", c.name, got, r)
			}
		}
		if !s.isRevoked(t, "", one.GetToken()) || !s.isRevoked(t, "", other.GetToken()) {
			t.Errorf("%s: not revoked", c.name)
		}
		lifted, err := c.revocations.LiftRevocation(t.Context(), &pb.LiftRevocationRequest{Keyset: "zone", Jti: one.GetJti(), Reason: "found"})
		if err != nil || lifted.GetRevocation().GetLiftedAt() == nil || s.isRevoked(t, "", one.GetToken()) {
			t.Errorf("%s: %v, %v", c.name, lifted, err)
		}
		if !s.isRevoked(t, "", other.GetToken()) {
			t.Errorf("%s: lifted too", c.name)
		}
	}
}

// A token that nobody here has issued: of an ID that the ledger does not have.
func TestRevokeUnseen(t *testing.T) {
	s := newTestServer(t)
	c := s.as(s.admin).revocations
	soon := timestamppb.New(time.Now().Add(time.Hour).Truncate(time.Second).Add(time.Millisecond))
	resp, err := c.RevokeToken(t.Context(), &pb.RevokeTokenRequest{Jti: "offline-1", Keyset: "zone", ExpiresAt: soon})
	if err != nil || resp.GetRevocation().GetExpiresAt().GetSeconds() != soon.GetSeconds()+1 || resp.GetRevocation().GetExpiresAt().GetNanos() != 0 {
		t.Errorf("%v, %v", resp, err)
	}
	again := must(c.RevokeToken(t.Context(), &pb.RevokeTokenRequest{Jti: "offline-1", Keyset: "zone", ExpiresAt: soon, Reason: "x"}))
	if !proto.Equal(again, resp) {
		t.Errorf("again: %v, was %v", again, resp)
	}
	past, err := c.RevokeToken(t.Context(), &pb.RevokeTokenRequest{Jti: "offline-2", Keyset: "zone", ExpiresAt: timestamppb.New(time.Now().Add(-10 * time.Minute))})
	if err != nil || !past.GetExpired() || past.GetRevocation() != nil {
		t.Errorf("%v, %v", past, err)
	}
	_, err = c.GetRevocation(t.Context(), &pb.GetRevocationRequest{Keyset: "zone", Jti: "offline-2"})
	wantCode(t, err, connect.CodeNotFound)
	far := time.Now().Add(101 * 365 * 24 * time.Hour)
	for want, req := range map[string]*pb.RevokeTokenRequest{
		"keyset and expires_at: required":     {Jti: "x"},
		"expires_at: required":                {Jti: uuid.NewString(), Keyset: "zone"},
		"keyset: required":                    {Jti: "x", ExpiresAt: soon},
		"expires_at: is more than 100 years":  {Jti: "x", Keyset: "zone", ExpiresAt: timestamppb.New(far)},
		"expires_at: is not a time":           {Jti: "x", Keyset: "zone", ExpiresAt: &timestamppb.Timestamp{Seconds: 1 << 60}},
		"jti: is longer than 255 bytes":       {Jti: strings.Repeat("é", 128), Keyset: "zone", ExpiresAt: soon},
		"give either the token or its jti":    {Jti: "x", Token: "y"},
		"token or its jti":                    {Keyset: "zone"},
		"the database refused a value":        {Jti: "a\x00b", Keyset: "zone", ExpiresAt: soon},
		"reason: value length must be at mo":  {Jti: "x", Reason: strings.Repeat("x", 501)},
		"token: malformed token: not three p": {Token: "x"},
	} {
		_, err := c.RevokeToken(t.Context(), req)
		wantCode(t, err, connect.CodeInvalidArgument)
		if err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	_, err = c.RevokeToken(t.Context(), &pb.RevokeTokenRequest{Jti: "x", Keyset: "nosuch", ExpiresAt: soon})
	wantCode(t, err, connect.CodeNotFound)
}

// Only what a key of the keyset has signed says which token it is.
func TestRevokeForged(t *testing.T) {
	w := newWorld(t)
	box := &keyBox{}
	w.backends["fake"] = signertest.NewFake(t, signertest.FakeOptions{Generate: box.generate})
	s := w.start(t, w.config(), append(zoneAnd("other")[1:], &pb.Keyset{Name: "zone", Profile: pb.Profile_PROFILE_ZONE, Algorithm: "RS256", Backend: "fake"})...)
	issued := s.issueFor(t, "", "west")
	f := forge{box.made[0], issued.GetKid(), part(t, issued.GetToken(), 0), part(t, issued.GetToken(), 1), issued.GetToken()}
	c := s.as(s.admin).revocations
	forged := forgeries(f, issued.GetExpiresAt().GetSeconds())
	cases := map[string]string{"other key": forge{must(rsa.GenerateKey(rand.Reader, 2048)), f.kid, f.header, f.payload, ""}.sign(f.header, f.payload)}
	for name, bad := range forged {
		if bad[1] != "expired" && bad[1] != "not_yet_valid" {
			cases[name] = bad[0]
		}
	}
	for name, raw := range cases {
		_, err := c.RevokeToken(t.Context(), &pb.RevokeTokenRequest{Token: raw})
		if connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
	if list := must(c.ListRevocations(t.Context(), &pb.ListRevocationsRequest{Keyset: "zone"})); len(list.GetRevocations()) != 0 {
		t.Errorf("%v", list)
	}
	for _, keyset := range []string{"other", "nosuch"} {
		if _, err := c.RevokeToken(t.Context(), &pb.RevokeTokenRequest{Token: f.good, Keyset: keyset}); err == nil {
			t.Errorf("revoked as one of %s", keyset)
		}
	}
	// A verifier with leeway accepts what has only just expired.
	expired, err := c.RevokeToken(t.Context(), &pb.RevokeTokenRequest{Token: forged["expired"][0]})
	if err != nil || expired.GetRevocation() == nil {
		t.Errorf("%v, %v", expired, err)
	}
	// One that is yet to become valid can be stopped before it does.
	if early, err := c.RevokeToken(t.Context(), &pb.RevokeTokenRequest{Token: forged["not yet valid"][0]}); err != nil || early.GetRevocation().GetJti() != issued.GetJti() {
		t.Errorf("%v, %v", early, err)
	}
}

// A verifier may believe a key for longer than it is in the JWK set.
func TestRevokeTokenOfEndedKey(t *testing.T) {
	s := newTestServer(t)
	first := s.issueFor(t, "", "west")
	end := func(moves ...store.Move) {
		t.Helper()
		_, err := s.db.ChangeKeys(t.Context(), s.keysetID(t, "zone"), store.Actor{Name: "cli/test"}, func(*store.Lifecycle) (store.Change, error) {
			return store.Change{Moves: moves}, nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	end(store.Move{Serial: 1, To: store.StateRetiring}, store.Move{Serial: 1, To: store.StateRemoved}, store.Move{Serial: 2, To: store.StateActive})
	var second *pb.IssueZoneTokenResponse
	eventually(t, "the second key signs", func() bool {
		second = s.issueFor(t, "", "west")
		return strings.HasPrefix(second.GetKid(), "zone-2-")
	})
	end(store.Move{Serial: 2, To: store.StateDistrusted})
	eventually(t, "both are gone", func() bool {
		_, body := s.get(t, "/keysets/zone/jwks.json")
		return !strings.Contains(body, first.GetKid()) && !strings.Contains(body, second.GetKid())
	})
	for _, issued := range []*pb.IssueZoneTokenResponse{first, second} {
		for _, keyset := range []string{"", "zone"} {
			resp, err := s.as(s.admin).revocations.RevokeToken(t.Context(), &pb.RevokeTokenRequest{Token: issued.GetToken(), Keyset: keyset})
			if err != nil || resp.GetRevocation().GetJti() != issued.GetJti() {
				t.Errorf("%v, %v", resp, err)
			}
		}
	}
}

// Another issuer's tokens, whose key IDs are unique in their keyset only: the
// signature tells which keyset they are of.
func TestRevokeTokenOfImportedKey(t *testing.T) {
	w := newWorld(t)
	s := w.start(t, w.config(), zoneAnd("other")...)
	exp := time.Now().Add(time.Hour).Unix()
	for _, keyset := range []string{"zone", "other"} {
		key := must(rsa.GenerateKey(rand.Reader, 2048))
		jti := "kuma," + keyset // which no list in text form can have
		raw := rs256(key, `{"alg":"RS256","kid":"1","typ":"JWT"}`, fmt.Sprintf(`{"Zone":"west","Scope":["ingress"],"exp":%d,"jti":%q,"iss":"kuma"}`, exp, jti))
		spki := must(x509.MarshalPKIXPublicKey(key.Public()))
		_, err := s.as(s.admin).keys.ImportPublicKey(t.Context(), &pb.ImportPublicKeyRequest{
			Keyset: keyset, Kid: "1", Token: raw, PublicKey: string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki})),
		})
		if err != nil {
			t.Fatal(err)
		}
		resp, err := s.as(s.admin).revocations.RevokeToken(t.Context(), &pb.RevokeTokenRequest{Token: raw})
		if r := resp.GetRevocation(); err != nil || r.GetKeyset() != keyset || r.GetJti() != jti || r.GetExpiresAt().GetSeconds() != exp {
			t.Errorf("%v, %v", resp, err)
		}
	}
}

func TestRevokeContradicted(t *testing.T) {
	w := newWorld(t)
	s := w.start(t, w.config(), zoneAnd("other")...)
	issued := s.issueFor(t, "", "west")
	for _, req := range []*pb.RevokeTokenRequest{
		{Jti: issued.GetJti(), Keyset: "other"}, {Jti: issued.GetJti(), Keyset: "nosuch", ExpiresAt: timestamppb.Now()}, {Token: issued.GetToken(), Keyset: "other"},
	} {
		_, err := s.as(s.admin).revocations.RevokeToken(t.Context(), req)
		wantCode(t, err, connect.CodeInvalidArgument)
	}
	if s.isRevoked(t, "", issued.GetToken()) {
		t.Error("revoked")
	}
}

func TestRevokeTokens(t *testing.T) {
	w := newWorld(t)
	s := w.start(t, w.config(), zoneAnd("other")...)
	var west, east []*pb.IssueZoneTokenResponse
	for range 3 {
		west = append(west, s.issueFor(t, "", "west"))
		east = append(east, s.issueFor(t, "other", "east"))
	}
	c := s.as(s.admin).revocations
	revoke := func(req *pb.RevokeTokensRequest, matched, revoked int64) {
		t.Helper()
		resp, err := c.RevokeTokens(t.Context(), req)
		if err != nil || resp.GetMatched() != matched || resp.GetRevoked() != revoked {
			t.Errorf("%v: %v, %v, want %d and %d", req, resp, err, matched, revoked)
		}
	}
	zone := &pb.RevocationFilter{Zone: "west"}
	revoke(&pb.RevokeTokensRequest{Filter: zone, DryRun: true}, 3, 0)
	revoke(&pb.RevokeTokensRequest{Filter: zone, DryRun: true, ExpectedCount: proto.Int64(7)}, 3, 0)
	_, err := c.RevokeTokens(t.Context(), &pb.RevokeTokensRequest{Filter: zone, ExpectedCount: proto.Int64(2)})
	wantCode(t, err, connect.CodeFailedPrecondition)
	if err != nil && !strings.Contains(err.Error(), "3 tokens match, not 2 as expected") {
		t.Error(err)
	}
	if s.isRevoked(t, "", west[0].GetToken()) {
		t.Error("revoked by a dry run, or by a refused one")
	}
	revoke(&pb.RevokeTokensRequest{Filter: zone, ExpectedCount: proto.Int64(3), Reason: "gone"}, 3, 3)
	revoke(&pb.RevokeTokensRequest{Filter: zone}, 3, 0)
	revoke(&pb.RevokeTokensRequest{Filter: &pb.RevocationFilter{Zone: "wes*"}}, 0, 0) // no pattern
	revoke(&pb.RevokeTokensRequest{Filter: &pb.RevocationFilter{Keyset: "other", Serial: 1}}, 3, 3)
	revoke(&pb.RevokeTokensRequest{Filter: &pb.RevocationFilter{Keyset: "zone", Serial: 2}}, 0, 0)
	revoke(&pb.RevokeTokensRequest{Filter: &pb.RevocationFilter{IssuedAfter: timestamppb.New(time.Now().Add(-time.Minute))}, DryRun: true}, 6, 0)
	revoke(&pb.RevokeTokensRequest{Filter: &pb.RevocationFilter{IssuedBefore: timestamppb.New(time.Now().Add(-time.Minute))}}, 0, 0)
	revoke(&pb.RevokeTokensRequest{Filter: &pb.RevocationFilter{Caller: "api-token/nobody"}}, 0, 0)
	for i := range west {
		if !s.isRevoked(t, "", west[i].GetToken()) || !s.isRevoked(t, "other", east[i].GetToken()) {
			t.Error("not revoked")
		}
	}
	now := timestamppb.Now()
	for want, req := range map[string]*pb.RevokeTokensRequest{
		"filter: is empty":                    {Filter: &pb.RevocationFilter{}},
		"filter: value is required":           {},
		"serial: needs the keyset":            {Filter: &pb.RevocationFilter{Serial: 1}},
		"issued_before: must be later":        {Filter: &pb.RevocationFilter{IssuedAfter: now, IssuedBefore: now}},
		"issued_after: is not a time":         {Filter: &pb.RevocationFilter{IssuedAfter: &timestamppb.Timestamp{Nanos: -1}}},
		"expected_count: value must be great": {Filter: zone, ExpectedCount: proto.Int64(-1)},
	} {
		_, err := c.RevokeTokens(t.Context(), req)
		wantCode(t, err, connect.CodeInvalidArgument)
		if err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	_, err = c.RevokeTokens(t.Context(), &pb.RevokeTokensRequest{Filter: &pb.RevocationFilter{Keyset: "nosuch"}})
	wantCode(t, err, connect.CodeNotFound)
}

// A token that is issued while its like are revoked is revoked, or comes after.
func TestRevokeTokensInFlight(t *testing.T) {
	s := newTestServer(t)
	c := s.as(s.admin)
	stop, issued := make(chan struct{}), make(chan []*pb.IssueZoneTokenResponse, 4)
	var began atomic.Bool
	for range cap(issued) {
		go func() {
			var list []*pb.IssueZoneTokenResponse
			for {
				select {
				case <-stop:
					issued <- list
					return
				default:
				}
				if r, err := c.tokens.IssueZoneToken(t.Context(), &pb.IssueZoneTokenRequest{Zone: "west", ValidFor: hour()}); err == nil {
					list = append(list, r)
					began.Store(true)
				}
			}
		}()
	}
	eventually(t, "tokens are issued", began.Load)
	time.Sleep(50 * time.Millisecond)
	resp := must(c.revocations.RevokeTokens(t.Context(), &pb.RevokeTokensRequest{Filter: &pb.RevocationFilter{Zone: "west"}}))
	close(stop)
	var revoked int64
	for range cap(issued) {
		for _, r := range <-issued {
			if s.isRevoked(t, "", r.GetToken()) {
				revoked++
			}
		}
	}
	if revoked != resp.GetMatched() || revoked == 0 {
		t.Errorf("%d are revoked, %d matched", revoked, resp.GetMatched())
	}
}

func TestNarrowedRevoker(t *testing.T) {
	w := newWorld(t)
	s := w.start(t, w.config(), zoneAnd("other", "user")...)
	revoker := func(keysets, zones []string) wire {
		return s.as(s.apiToken(t, store.APIToken{Name: "r", Roles: []string{"revoker"}, Keysets: keysets, Zones: zones}))
	}
	west, east, other := s.issueFor(t, "", "west"), s.issueFor(t, "", "east"), s.issueFor(t, "other", "west")
	soon := timestamppb.New(time.Now().Add(time.Hour))
	narrow := map[string]wire{"zones": revoker(nil, []string{"we*"}), "keysets": revoker([]string{"zone"}, nil), "both": revoker([]string{"zone"}, []string{"west"})}
	for _, c := range []struct {
		who     string
		what    string
		allowed bool
		req     *pb.RevokeTokenRequest
	}{
		{"zones", "its own by jti", true, &pb.RevokeTokenRequest{Jti: west.GetJti()}},
		{"zones", "its own by token", true, &pb.RevokeTokenRequest{Token: west.GetToken()}},
		{"zones", "its own elsewhere", true, &pb.RevokeTokenRequest{Token: other.GetToken()}},
		{"zones", "another's by jti", false, &pb.RevokeTokenRequest{Jti: east.GetJti()}},
		{"zones", "another's by token", false, &pb.RevokeTokenRequest{Token: east.GetToken()}},
		{"zones", "unknown", false, &pb.RevokeTokenRequest{Jti: "x", Keyset: "zone", ExpiresAt: soon}},
		{"zones", "a user", false, &pb.RevokeTokenRequest{Jti: "west", Keyset: "user", ExpiresAt: soon}},
		{"keysets", "its own", true, &pb.RevokeTokenRequest{Jti: east.GetJti()}},
		{"keysets", "unknown", true, &pb.RevokeTokenRequest{Jti: "x", Keyset: "zone", ExpiresAt: soon}},
		{"keysets", "another's by jti", false, &pb.RevokeTokenRequest{Jti: other.GetJti()}},
		{"keysets", "another's named", false, &pb.RevokeTokenRequest{Token: other.GetToken(), Keyset: "other"}},
		{"keysets", "unknown of another", false, &pb.RevokeTokenRequest{Jti: "x", Keyset: "other", ExpiresAt: soon}},
		{"both", "its own", true, &pb.RevokeTokenRequest{Jti: west.GetJti()}},
		{"both", "zone elsewhere", false, &pb.RevokeTokenRequest{Jti: other.GetJti()}},
	} {
		_, err := narrow[c.who].revocations.RevokeToken(t.Context(), c.req)
		want := connect.CodePermissionDenied
		if c.req.GetJti() == other.GetJti() {
			want = connect.CodeInvalidArgument // as if there were no such token
		}
		if (err == nil) != c.allowed || err != nil && connect.CodeOf(err) != want {
			t.Errorf("%s, %s: %v", c.who, c.what, err)
		}
		if err != nil && strings.Contains(err.Error(), "other") && c.what == "another's by jti" {
			t.Errorf("%v tells where the token is", err)
		}
	}
	// Not even that it is a good one: the keys of other keysets are not tried.
	_, err := narrow["keysets"].revocations.RevokeToken(t.Context(), &pb.RevokeTokenRequest{Token: other.GetToken()})
	wantCode(t, err, connect.CodeInvalidArgument)
	s.narrowedFilters(t, narrow)
}

func (s *server) narrowedFilters(t *testing.T, narrow map[string]wire) {
	t.Helper()
	for _, c := range []struct {
		who     string
		matched int64 // -1: forbidden
		filter  *pb.RevocationFilter
	}{
		{"zones", -1, &pb.RevocationFilter{Zone: "west"}},
		{"zones", -1, &pb.RevocationFilter{Zone: "east", Keyset: "zone"}},
		{"zones", -1, &pb.RevocationFilter{Keyset: "user"}},
		{"zones", 1, &pb.RevocationFilter{Keyset: "zone"}},
		{"zones", 1, &pb.RevocationFilter{Keyset: "other", Zone: "west"}},
		{"keysets", -1, &pb.RevocationFilter{Zone: "west"}},
		{"keysets", -1, &pb.RevocationFilter{Keyset: "other"}},
		{"keysets", -1, &pb.RevocationFilter{Keyset: "nosuch"}},
		{"keysets", 2, &pb.RevocationFilter{Keyset: "zone"}},
		{"both", 1, &pb.RevocationFilter{Keyset: "zone"}},
	} {
		for _, dry := range []bool{true, false} {
			resp, err := narrow[c.who].revocations.RevokeTokens(t.Context(), &pb.RevokeTokensRequest{Filter: c.filter, DryRun: dry})
			switch {
			case c.matched < 0:
				if connect.CodeOf(err) != connect.CodePermissionDenied {
					t.Errorf("%s, %v: %v", c.who, c.filter, err)
				}
			case err != nil || resp.GetMatched() != c.matched:
				t.Errorf("%s, %v: %v, %v", c.who, c.filter, resp, err)
			}
		}
	}
}

func TestNarrowedAdministratorLifts(t *testing.T) {
	w := newWorld(t)
	s := w.start(t, w.config(), zoneAnd("other")...)
	west, east := s.issueFor(t, "", "west"), s.issueFor(t, "", "east")
	all := s.as(s.admin).revocations
	for _, r := range []*pb.IssueZoneTokenResponse{west, east} {
		must(all.RevokeToken(t.Context(), &pb.RevokeTokenRequest{Jti: r.GetJti()}))
	}
	must(all.RevokeToken(t.Context(), &pb.RevokeTokenRequest{Jti: "offline", Keyset: "zone", ExpiresAt: timestamppb.New(time.Now().Add(time.Hour))}))
	narrow := s.as(s.apiToken(t, store.APIToken{Name: "a", Roles: []string{"admin"}, Keysets: []string{"zone"}, Zones: []string{"west"}})).revocations
	lift := func(keyset, jti string) error {
		_, err := narrow.LiftRevocation(t.Context(), &pb.LiftRevocationRequest{Keyset: keyset, Jti: jti, Reason: "r"})
		return err
	}
	if err := lift("zone", west.GetJti()); err != nil {
		t.Error(err)
	}
	for _, jti := range []string{east.GetJti(), "offline", uuid.NewString()} {
		wantCode(t, lift("zone", jti), connect.CodePermissionDenied)
	}
	wantCode(t, lift("other", west.GetJti()), connect.CodePermissionDenied)
	_, err := all.LiftRevocation(t.Context(), &pb.LiftRevocationRequest{Keyset: "zone", Jti: "offline"})
	wantCode(t, err, connect.CodeInvalidArgument)
	_, err = all.LiftRevocation(t.Context(), &pb.LiftRevocationRequest{Keyset: "zone", Jti: "nosuch", Reason: "r"})
	wantCode(t, err, connect.CodeNotFound)
}

func TestListRevocations(t *testing.T) {
	w := newWorld(t)
	s := w.start(t, w.config(), zoneAnd("other")...)
	c := s.as(s.admin).revocations
	soon := timestamppb.New(time.Now().Add(time.Hour))
	var want []string
	for i := range 25 {
		jti := fmt.Sprintf("jti-%02d", i)
		must(c.RevokeToken(t.Context(), &pb.RevokeTokenRequest{Jti: jti, Keyset: "zone", ExpiresAt: soon}))
		want = append(want, jti)
	}
	must(c.LiftRevocation(t.Context(), &pb.LiftRevocationRequest{Keyset: "zone", Jti: want[3], Reason: "r"}))
	want = slices.Delete(want, 3, 4)
	for _, size := range []int32{0, 1, 5, 8, 24, 1000} {
		var got []string
		for page := ""; ; {
			resp := must(c.ListRevocations(t.Context(), &pb.ListRevocationsRequest{Keyset: "zone", PageSize: size, PageToken: page}))
			for _, r := range resp.GetRevocations() {
				got = append(got, r.GetJti())
			}
			if page = resp.GetNextPageToken(); page == "" {
				break
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("by %d: %v", size, got)
		}
	}
	if resp := must(c.ListRevocations(t.Context(), &pb.ListRevocationsRequest{Keyset: "other"})); len(resp.GetRevocations()) != 0 || resp.GetNextPageToken() != "" {
		t.Errorf("%v", resp)
	}
	for _, bad := range []string{"x", "-1", "0", "1.5", "99999999999999999999"} {
		_, err := c.ListRevocations(t.Context(), &pb.ListRevocationsRequest{Keyset: "zone", PageToken: bad})
		wantCode(t, err, connect.CodeInvalidArgument)
	}
	narrow := s.as(s.apiToken(t, store.APIToken{Name: "v", Roles: []string{"verifier"}, Keysets: []string{"other"}})).revocations
	_, err := narrow.ListRevocations(t.Context(), &pb.ListRevocationsRequest{Keyset: "zone"})
	wantCode(t, err, connect.CodePermissionDenied)
	_, err = narrow.GetRevocation(t.Context(), &pb.GetRevocationRequest{Keyset: "zone", Jti: want[0]})
	wantCode(t, err, connect.CodePermissionDenied)
}
