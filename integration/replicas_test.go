package integration

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
)

// TestTwoReplicas runs two servers on one database.
func TestTwoReplicas(t *testing.T) {
	// A heartbeat comes every sixth of the lease.
	const lease, heartbeat = 3 * time.Second, 500 * time.Millisecond
	in := installAdmin(t, newPostgres(t), settings{leaseTTL: lease})
	a, b := in.start(t), in.start(t)
	onA, onB := a.overConnect(t, in.admin), b.overConnect(t, in.admin)

	t.Run("each accepts the other's tokens", func(t *testing.T) {
		wantValid(t, b.keys(t, "zone"), onA.mustIssueSoon(t, "east"))
		wantValid(t, a.keys(t, "zone"), onB.mustIssueSoon(t, "west"))
	})
	t.Run("a keyset of one is a keyset of both", func(t *testing.T) {
		createKeyset(t, onA, "edge")
		// The other one may see it half made before it sees it whole.
		want := string(a.jwks(t, "edge").body)
		took := eventually(t, heartbeat+time.Second, "the other server serves the new keyset", func() bool {
			return string(get(t, b.public, "/keysets/edge/jwks.json").body) == want
		})
		t.Logf("it took %s, a heartbeat is %s", took.Round(time.Millisecond), heartbeat)
		eventually(t, heartbeat+time.Second, "the other server issues from it", func() bool {
			_, err := onB.tokens.IssueZoneToken(t.Context(), &pb.IssueZoneTokenRequest{
				Keyset: "edge", Zone: "north", ValidFor: durationpb.New(time.Minute),
			})
			return err == nil
		})
		k := issueFrom(t, onB, "edge", "north")
		wantValid(t, a.keys(t, "edge"), k)
	})
	t.Run("both make the same keyset once", func(t *testing.T) { raceForKeyset(t, onA, onB) })
	t.Run("an API token revoked on one is refused on the other", func(t *testing.T) {
		wantRevokedEverywhere(t, a, b, onA)
	})
	t.Run("one goes on when the other is killed", func(t *testing.T) {
		a.kill()
		wantValid(t, b.keys(t, "zone"), onB.mustIssue(t, "south"))
	})
	b.stop(t)
	in.verifyLedger(t)
}

func createKeyset(t *testing.T, c client, name string) {
	t.Helper()
	if _, err := c.keys.CreateKeyset(t.Context(), newKeyset(name)); err != nil {
		t.Fatal(err)
	}
}

func newKeyset(name string) *pb.CreateKeysetRequest {
	return &pb.CreateKeysetRequest{Keyset: &pb.Keyset{Name: name, Profile: pb.Profile_PROFILE_ZONE, Algorithm: "ES256"}}
}

// issueFrom asks for a token of a keyset, as mustIssueSoon does.
func issueFrom(t *testing.T, c client, keyset, zone string) issued {
	t.Helper()
	var resp *pb.IssueZoneTokenResponse
	eventually(t, 10*time.Second, "there is a token of "+keyset, func() (ok bool) {
		var err error
		resp, err = c.tokens.IssueZoneToken(t.Context(), &pb.IssueZoneTokenRequest{
			Keyset: keyset, Zone: zone, ValidFor: durationpb.New(time.Hour),
		})
		if err != nil && codeOf(err) != connect.CodeUnavailable {
			t.Fatal(err)
		}
		return err == nil
	})
	return issued{zone: zone, token: resp.GetToken(), jti: resp.GetJti(), kid: resp.GetKid()}
}

// raceForKeyset has both servers make the same keyset at the same time. One
// does, the other says that it exists.
func raceForKeyset(t *testing.T, clients ...client) {
	outcomes := make(chan error)
	for _, c := range clients {
		go func() {
			_, err := c.keys.CreateKeyset(t.Context(), newKeyset("contended"))
			outcomes <- err
		}()
	}
	made := 0
	for range clients {
		if err := <-outcomes; err == nil {
			made++
		} else if code := connect.CodeOf(err); code != connect.CodeAlreadyExists && code != connect.CodeAborted {
			t.Errorf("the loser of the race got %v", err)
		}
	}
	if made != 1 {
		t.Errorf("%d servers made the keyset", made)
	}
	keys, err := clients[0].keys.ListSigningKeys(t.Context(), &pb.ListSigningKeysRequest{Keyset: "contended"})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(keys.GetSigningKeys()); n != 2 {
		t.Errorf("the keyset has %d keys, want 2", n)
	}
}

// wantRevokedEverywhere makes an API token known to both servers, so that both
// may remember it, and revokes it on one.
func wantRevokedEverywhere(t *testing.T, a, b *server, admin client) {
	made, err := admin.callers.CreateApiToken(t.Context(), &pb.CreateApiTokenRequest{Name: "renewer", Roles: []string{"issuer"}})
	if err != nil {
		t.Fatal(err)
	}
	onA, onB := a.overConnect(t, made.GetToken()), b.overGRPC(t, made.GetToken())
	onA.mustIssueSoon(t, "east")
	onB.mustIssueSoon(t, "east")
	_, err = admin.callers.RevokeApiToken(t.Context(), &pb.RevokeApiTokenRequest{Id: made.GetApiToken().GetId()})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []client{onB, onA, b.overConnect(t, made.GetToken())} {
		if _, err := c.issue(t.Context(), "east", 10*time.Second); connect.CodeOf(err) != connect.CodeUnauthenticated {
			t.Errorf("issuing with a revoked API token: got %v, want %v", err, connect.CodeUnauthenticated)
		}
	}
	_, err = onB.callers.WhoAmI(context.WithoutCancel(t.Context()), &pb.WhoAmIRequest{})
	if connect.CodeOf(err) != connect.CodeUnauthenticated {
		t.Errorf("asking who it is with a revoked API token: got %v, want %v", err, connect.CodeUnauthenticated)
	}
}

// TestInstanceKey starts servers without the instance key that the database was
// set up with. They say so and end.
func TestInstanceKey(t *testing.T) {
	onBothStores(t, func(t *testing.T, db database) {
		in := installAdmin(t, db, settings{})
		other, none := filepath.Join(in.dir, "other.key"), filepath.Join(in.dir, "none.key")
		zonemint(t, "instance-key", "generate", other).must(t)
		for key, want := range map[string]string{other: "another instance key", none: none} {
			config := filepath.Join(t.TempDir(), "zonemint.yaml")
			in.configure(t, config, key, settings{})
			s := launch(t, config)
			code := s.wait(t, time.Minute)
			if text := s.log.String(); code == 0 || !strings.Contains(text, want) || !strings.Contains(text, "instance key") {
				t.Errorf("exit code %d, want another than 0 and a text with %q, got:\n%s", code, want, text)
			}
		}
		s := in.start(t) // the attempts have changed nothing
		wantValid(t, s.keys(t, "zone"), s.overConnect(t, in.admin).mustIssue(t, "east"))
	})
}
