package service_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/service"
	"github.com/zonemint/zonemint/signer"
	"github.com/zonemint/zonemint/signer/signertest"
	"github.com/zonemint/zonemint/store"
	"github.com/zonemint/zonemint/store/storetest/invariant"
)

// swift is a configuration with which a published key may sign after
// swiftWait.
func swift(w *world) service.Config {
	cfg := brisk(w)
	cfg.MaxAge, cfg.Skew = 200*time.Millisecond, 10*time.Millisecond
	return cfg
}

// swiftWait is a lease, a cache and a skew.
const swiftWait = 600*time.Millisecond + 200*time.Millisecond + 10*time.Millisecond

// look opens the database behind everybody's back.
func (w *world) look(t testing.TB) *sql.DB {
	t.Helper()
	db := must(sql.Open("sqlite", "file:"+w.file+"?_pragma=busy_timeout(5000)"))
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// sets returns the kids that this replica serves, by keyset.
func (s *server) sets(t testing.TB) map[string][]string {
	t.Helper()
	sets := map[string][]string{}
	for _, ks := range must(s.as(s.admin).keys.ListKeysets(t.Context(), &pb.ListKeysetsRequest{})).GetKeysets() {
		sets[ks.GetName()] = s.served(t, ks.GetName())
	}
	return sets
}

func (s *server) served(t testing.TB, keyset string) (kids []string) {
	t.Helper()
	_, body := s.get(t, "/keysets/"+keyset+"/jwks.json")
	var set struct {
		Keys []struct{ Kid string }
	}
	if err := json.Unmarshal([]byte(body), &set); err != nil {
		t.Fatalf("JWK set of %s: %v in %s", keyset, err, body)
	}
	for _, k := range set.Keys {
		kids = append(kids, k.Kid)
	}
	return kids
}

// sound checks what holds after every step, whoever has taken it.
func (s *server) sound(t testing.TB) {
	t.Helper()
	sets, db := s.sets(t), s.look(t)
	for _, err := range []error{
		invariant.Check(t.Context(), db), invariant.KIDs(t.Context(), db), invariant.JWKSAt(t.Context(), db, sets, s.dbClock.now()),
	} {
		if err != nil {
			t.Errorf("invariants: %v", err)
		}
	}
	for name, b := range s.backends {
		if fake, ok := b.(*signertest.Fake); ok {
			var labels []string
			for _, k := range fake.Keys() {
				if !signer.IsLabel(k.Label) {
					continue // of somebody else
				}
				labels = append(labels, k.Label)
			}
			if err := invariant.Backend(t.Context(), db, labels); err != nil {
				t.Errorf("backend %s: %v", name, err)
			}
		}
	}
}

// settles waits until nothing is under way.
func (s *server) settles(t testing.TB) {
	t.Helper()
	db := s.look(t)
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		err := invariant.CheckSettled(t.Context(), db)
		if err == nil {
			s.sound(t)
			return
		}
		if time.Now().After(end) {
			t.Fatalf("it does not settle: %v", err)
		}
	}
}

// keyAt returns a key of the keyset zone.
func (s *server) keyAt(t testing.TB, serial int32) *pb.GetSigningKeyResponse {
	t.Helper()
	resp, err := s.as(s.admin).keys.GetSigningKey(t.Context(), &pb.GetSigningKeyRequest{Keyset: "zone", Serial: serial})
	if err != nil {
		t.Fatalf("serial %d: %v", serial, err)
	}
	return resp
}

func (s *server) stateOf(t testing.TB, serial int32) string {
	t.Helper()
	return s.keyAt(t, serial).GetSigningKey().GetState()
}

// become waits for a key to come to a state.
func (s *server) become(t testing.TB, serial int32, state store.State) {
	t.Helper()
	eventually(t, "serial becomes "+string(state), func() bool {
		k, err := s.as(s.admin).keys.GetSigningKey(context.Background(), &pb.GetSigningKeyRequest{Keyset: "zone", Serial: serial})
		return err == nil && k.GetSigningKey().GetState() == string(state)
	})
	s.sound(t)
}

// states wants the keys of the keyset zone to be in these states, by serial.
func (s *server) states(t testing.TB, want ...string) {
	t.Helper()
	var got []string
	for _, k := range must(s.as(s.admin).keys.ListSigningKeys(t.Context(), &pb.ListSigningKeysRequest{Keyset: "zone"})).GetSigningKeys() {
		got = append(got, k.GetState())
	}
	if !slices.Equal(got, want) {
		t.Errorf("the keys are %v, want %v", got, want)
	}
	s.sound(t)
}

// mint issues a token that is valid for some time and wants it to verify.
func (s *server) mint(t testing.TB, validFor time.Duration) *pb.IssueZoneTokenResponse {
	t.Helper()
	var resp *pb.IssueZoneTokenResponse
	var err error
	eventually(t, "the replica has its lease", func() bool {
		resp, err = s.as(s.admin).tokens.IssueZoneToken(t.Context(), &pb.IssueZoneTokenRequest{Zone: "west", ValidFor: durationpb.New(validFor)})
		return !heldUp(err)
	})
	if err != nil {
		t.Fatal(err)
	}
	s.verifies(t, resp.GetToken(), "")
	return resp
}

// verifies wants a token to be good, or bad for a reason.
func (s *server) verifies(t testing.TB, token, reason string) {
	t.Helper()
	resp, err := s.as(s.admin).tokens.VerifyToken(t.Context(), &pb.VerifyTokenRequest{Token: token})
	if err != nil || resp.GetValid() != (reason == "") || resp.GetReason() != reason {
		t.Errorf("the token is %v, %v; want %q", resp, err, reason)
	}
}

// verifiesUntil wants a token to be good until shortly before an end.
func (s *server) verifiesUntil(t testing.TB, token string, end time.Time) {
	t.Helper()
	for {
		resp, err := s.as(s.admin).tokens.VerifyToken(t.Context(), &pb.VerifyTokenRequest{Token: token})
		if time.Until(end) < 100*time.Millisecond {
			return // an answer that may be of after the end
		}
		if err != nil || !resp.GetValid() {
			t.Errorf("%s before its end the token is %v, %v", time.Until(end), resp, err)
		}
		s.sound(t)
		time.Sleep(20 * time.Millisecond)
	}
}

// audited returns the actions in the audit, oldest first.
func (w *world) audited(t testing.TB) (actions []string) {
	t.Helper()
	rows := must(w.look(t).QueryContext(t.Context(), "SELECT action FROM audit_events ORDER BY id"))
	defer rows.Close() //nolint:errcheck // its error is that of rows.Err
	for rows.Next() {
		var action string
		if err := rows.Scan(&action); err != nil {
			t.Fatal(err)
		}
		actions = append(actions, action)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return actions
}

// planOf returns what a plan does: "retire 1", "activate 2".
func planOf(steps []*pb.PlannedStep) (lines []string) {
	for _, step := range steps {
		line := fmt.Sprint(step.GetAction(), " ", step.GetSerial())
		if step.GetReason() == "" || step.GetKeyset() != "zone" {
			line += " ?"
		}
		lines = append(lines, line)
	}
	return lines
}
