package service_test

import (
	"context"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"github.com/google/uuid"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/store"
)

// One verifier cannot take a replica from the others.
func TestStreamsPerAPIToken(t *testing.T) {
	w := newWorld(t)
	s := w.start(t, w.config(), zoneKeyset())
	one := s.apiToken(t, store.APIToken{Name: "one", Roles: []string{"verifier"}})
	other := s.apiToken(t, store.APIToken{Name: "other", Roles: []string{"verifier"}})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	open := func(credential string) error {
		stream, err := s.as(credential).revocations.WatchRevocations(ctx, &pb.WatchRevocationsRequest{Keyset: "zone"})
		if err != nil {
			return err
		}
		t.Cleanup(func() { _ = stream.Close() })
		stream.Receive()
		return stream.Err()
	}
	for i := range 100 {
		if err := open(one); err != nil {
			t.Fatalf("stream %d: %v", i, err)
		}
	}
	if err := open(one); connect.CodeOf(err) != connect.CodeResourceExhausted {
		t.Errorf("stream 101: %v", err)
	}
	if err := open(other); err != nil {
		t.Errorf("of another API token: %v", err)
	}
	cancel()
	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	eventually(t, "those that have ended do not count", func() bool { err := open(one); return err == nil })
}

// A UUID is the same however it is written.
func TestRevocationsByOtherForms(t *testing.T) {
	s := newTestServer(t)
	id := uuid.NewString()
	s.revokeIDs(t, "zone", id, "NOT-a-uuid")
	c := s.as(s.admin).revocations
	for _, jti := range []string{id, strings.ToUpper(id), "NOT-a-uuid"} {
		if _, err := c.GetRevocation(t.Context(), &pb.GetRevocationRequest{Keyset: "zone", Jti: jti}); err != nil {
			t.Errorf("%s: %v", jti, err)
		}
	}
	for _, jti := range []string{"not-a-uuid", uuid.NewString()} {
		if _, err := c.GetRevocation(t.Context(), &pb.GetRevocationRequest{Keyset: "zone", Jti: jti}); connect.CodeOf(err) != connect.CodeNotFound {
			t.Errorf("%s: %v", jti, err)
		}
	}
	lifted := must(c.LiftRevocation(t.Context(), &pb.LiftRevocationRequest{Keyset: "zone", Jti: strings.ToUpper(id), Reason: "r"}))
	if lifted.GetRevocation().GetJti() != id || lifted.GetRevocation().GetLiftedAt() == nil {
		t.Errorf("%v", lifted)
	}
}

// What callers are told does not tell them of others.
func TestRevocationsKeepSecrets(t *testing.T) {
	w := newWorld(t)
	s := w.start(t, w.config(), zoneAnd("other")...)
	issued := s.issueFor(t, "", "west")
	must(s.as(s.admin).revocations.RevokeToken(t.Context(), &pb.RevokeTokenRequest{Jti: issued.GetJti(), Reason: "why"}))
	for _, c := range []struct {
		token store.APIToken
		told  bool
	}{
		{store.APIToken{Roles: []string{"verifier"}}, false},
		{store.APIToken{Roles: []string{"revoker"}, Zones: []string{"east"}}, false},
		{store.APIToken{Roles: []string{"revoker"}, Keysets: []string{"zone"}}, true},
		{store.APIToken{Roles: []string{"auditor", "verifier"}}, true},
	} {
		c.token.Name = "x"
		api := s.as(s.apiToken(t, c.token)).revocations
		got := must(api.GetRevocation(t.Context(), &pb.GetRevocationRequest{Keyset: "zone", Jti: issued.GetJti()})).GetRevocation()
		listed := must(api.ListRevocations(t.Context(), &pb.ListRevocationsRequest{Keyset: "zone"})).GetRevocations()[0]
		for _, r := range []*pb.Revocation{got, listed} {
			if (r.GetReason() != "") != c.told || (r.GetCaller() != "") != c.told || r.GetJti() == "" {
				t.Errorf("%v: %v", c.token, r)
			}
		}
	}
	refusal := func(narrow store.APIToken, jti string) string {
		narrow.Name, narrow.Roles = "x", []string{"revoker"}
		_, err := s.as(s.apiToken(t, narrow)).revocations.RevokeToken(t.Context(), &pb.RevokeTokenRequest{Jti: jti})
		if err == nil {
			t.Fatal("not refused")
		}
		return err.Error()
	}
	if text := refusal(store.APIToken{Zones: []string{"east"}}, issued.GetJti()); strings.Contains(text, "west") || !strings.Contains(text, "permission_denied") {
		t.Error(text)
	}
	elsewhere := store.APIToken{Keysets: []string{"other"}}
	if known, unknown := refusal(elsewhere, issued.GetJti()), refusal(elsewhere, uuid.NewString()); known != unknown {
		t.Errorf("%q, of a token that is not there %q", known, unknown)
	}
}

// Revoking again changes nothing, and is not counted.
func TestRevocationsAreCountedOnce(t *testing.T) {
	w := newWorld(t)
	s := w.start(t, lively(w.config()), zoneKeyset())
	issued := s.issueFor(t, "", "west")
	c := s.as(s.admin).revocations
	counted := func() bool {
		return strings.Contains(s.private("/metrics").Body.String(), `zonemint_revocations_total{how="jti"} 1`+"\n")
	}
	must(c.RevokeToken(t.Context(), &pb.RevokeTokenRequest{Jti: issued.GetJti()}))
	stream := must(c.WatchRevocations(t.Context(), &pb.WatchRevocationsRequest{Keyset: "zone"}))
	defer func() { _ = stream.Close() }()
	for range 4 { // signs of life: the feed has been followed
		stream.Receive()
	}
	must(c.RevokeToken(t.Context(), &pb.RevokeTokenRequest{Jti: issued.GetJti()}))
	if !counted() {
		t.Error(s.private("/metrics").Body.String())
	}
}
