package service_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/store"
	"github.com/zonemint/zonemint/token"
)

// The verifier's own client and this server agree, over streams and by polling.
func TestVerifiersFollowTheFeed(t *testing.T) {
	w := newWorld(t)
	s := w.start(t, lively(w.config()), zoneKeyset())
	credential := s.apiToken(t, store.APIToken{Name: "v", Roles: []string{"verifier"}, Keysets: []string{"zone"}})
	var early []string
	for i := range 2500 { // three pages
		early = append(early, fmt.Sprint("early-", i))
	}
	s.revokeIDs(t, "zone", early...)
	for _, poll := range []bool{false, true} {
		r := must(token.NewRemoteRevocations(s.url, "zone", token.RevocationOptions{
			Credential: func(context.Context) (string, error) { return credential, nil },
			Poll:       poll, PollInterval: 20 * time.Millisecond,
		}))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		<-r.Ready()
		revoked := func(jti string) bool { return must(r.Revoked(ctx, jti)) }
		// What was revoked before it is ready it knows then, all of it.
		if !revoked(early[0]) || !revoked(early[2499]) || revoked("x") {
			t.Errorf("poll %t: ready too early", poll)
		}
		issued := s.issueFor(t, "", "west")
		must(s.as(s.admin).revocations.RevokeToken(t.Context(), &pb.RevokeTokenRequest{Token: issued.GetToken()}))
		eventually(t, "revoked at the verifier", func() bool { return revoked(issued.GetJti()) })
		must(s.as(s.admin).revocations.LiftRevocation(t.Context(), &pb.LiftRevocationRequest{Keyset: "zone", Jti: issued.GetJti(), Reason: "r"}))
		eventually(t, "lifted at the verifier", func() bool { return !revoked(issued.GetJti()) })
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
}
