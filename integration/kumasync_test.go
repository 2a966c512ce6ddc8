package integration

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/zonemint/zonemint/integration/controlplane"
	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	v1 "github.com/zonemint/zonemint/proto/zonemint/v1/zonemintv1connect"
)

const (
	zoneList      = "zone-token-revocations"
	publicKeyName = "zone-token-signing-public-key-"
	planeToken    = "the-token-of-an-administrator"
	zoneDelay     = 500 * time.Millisecond
)

// synced is zonemint with a bridge and the control plane that it keeps up to date.
type synced struct {
	in          *installation
	server      *server
	client      client
	revocations v1.RevocationServiceClient
	plane       *controlplane.ControlPlane
	planeServer *controlplane.Server
	config      string // of the bridge
	token       string // the bridge's API token, a file
	bridge      *server
}

// newSynced starts zonemint and a control plane, with a keyset of zone tokens whose
// rotations wait for it. The bridge is not started yet.
func newSynced(t *testing.T) *synced {
	t.Helper()
	s := &synced{in: installAdmin(t, newSQLite(t, t.TempDir()), settings{
		keysets: []keyset{{"other", "zone", "RS256"}, {"dataplane/default", "dataplane", "RS256"}},
	})}
	s.keepAddress(t)
	s.server = s.in.start(t)
	s.client = s.server.overConnect(t, s.in.admin)
	s.revocations = v1.NewRevocationServiceClient(&http.Client{}, "http://"+s.server.public, connect.WithInterceptors(bearer(s.in.admin)))
	_, err := s.client.keys.CreateKeyset(t.Context(), &pb.CreateKeysetRequest{Keyset: &pb.Keyset{
		Name: "zone", Profile: pb.Profile_PROFILE_ZONE, Algorithm: "RS256", Distribution: pb.Distribution_DISTRIBUTION_KUMA_SYNC,
		Consumers: []string{"global"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	s.token = filepath.Join(s.in.dir, "bridge.token")
	zonemint(t, "api-token", "create", "--name", "kuma-sync", "--role", "verifier", "--out", s.token,
		"--addr", "http://"+s.server.public, "--token-file", s.in.adminToken).must(t)
	s.plane = controlplane.New(planeToken, "default")
	if s.planeServer, err = controlplane.Serve(s.plane); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.planeServer.Stop)
	t.Cleanup(func() {
		for _, v := range s.plane.Violations() {
			t.Error("the control plane objects:", v)
		}
	})
	s.configure(t)
	return s
}

func (s *synced) configure(t *testing.T) {
	t.Helper()
	secret := filepath.Join(s.in.dir, "plane.token")
	if err := os.WriteFile(secret, []byte(planeToken+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.config = filepath.Join(s.in.dir, "kuma-sync.yaml")
	text := fmt.Sprintf(`zonemint: {addr: "http://%s", token_file: %q}
control_planes:
  - name: global
    rest: {address: %q, token_file: %q}
    zone_delay: %s
    resync: 1s
`, s.server.public, s.token, s.planeServer.URL(), secret, zoneDelay)
	if err := os.WriteFile(s.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// startBridge starts the bridge. If it still runs when the test ends, it is killed.
func (s *synced) startBridge(t *testing.T) {
	t.Helper()
	s.bridge = launchCommand(t, exec.Command(os.Getenv(binaryVariable), "kuma", "sync", "--config", s.config))
}

// entries returns what is in a list.
func (s *synced) entries(mesh, name string) []string {
	secret, ok := s.plane.Secret(controlplane.Ref{Mesh: mesh, Name: name})
	if !ok {
		return nil
	}
	return strings.Split(secret.Data, ",")
}

// revokeNew issues a zone token and revokes it, and returns its ID.
func (s *synced) revokeNew(t *testing.T) string {
	t.Helper()
	k := s.client.mustIssue(t, "west")
	s.revoke(t, k.jti)
	return k.jti
}

func (s *synced) revoke(t *testing.T, jti string) {
	t.Helper()
	if _, err := s.revocations.RevokeToken(t.Context(), &pb.RevokeTokenRequest{Jti: jti, Reason: "a test"}); err != nil {
		t.Fatal(err)
	}
}

func (s *synced) lift(t *testing.T, jti string) {
	t.Helper()
	if _, err := s.revocations.LiftRevocation(t.Context(), &pb.LiftRevocationRequest{Keyset: "zone", Jti: jti, Reason: "a test"}); err != nil {
		t.Fatal(err)
	}
}

// keysOf returns the keys of keyset zone.
func (s *synced) keysOf(t *testing.T) []*pb.SigningKey {
	t.Helper()
	resp, err := s.client.keys.ListSigningKeys(t.Context(), &pb.ListSigningKeysRequest{Keyset: "zone"})
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetSigningKeys()
}

// converged says whether the control plane has just what zonemint has, and what is
// somebody else's.
func (s *synced) converged(t *testing.T, theirs []string, revoked map[string]bool) bool {
	t.Helper()
	got := s.entries("", zoneList)
	want := slices.Clone(theirs)
	for jti := range revoked {
		want = append(want, jti)
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		return false
	}
	for _, k := range s.keysOf(t) {
		secret, there := s.plane.Secret(controlplane.Ref{Name: publicKeyName + k.GetKid()})
		switch k.GetState() {
		case "published", "active", "retiring":
			if secret.Data != k.GetPublicKey() {
				return false
			}
		default:
			if there && k.GetKid() != "" {
				return false
			}
		}
	}
	return true
}

// TestKumaSyncConverges lets everything fail that can, on either side, and wants the
// control plane to have what zonemint says after each fault. What somebody else has
// put there stays, and nothing is ever written that a control plane would choke on.
func TestKumaSyncConverges(t *testing.T) {
	s := newSynced(t)
	theirs := []string{"their-token"}
	s.plane.Set(controlplane.Ref{Name: zoneList}, "their-token", nil)
	s.plane.Set(controlplane.Ref{Name: publicKeyName + "theirs"}, "their own business", nil)
	s.plane.Set(controlplane.Ref{Name: "zone-token-signing-key-1"}, "their private key", nil)
	s.startBridge(t)
	revoked := map[string]bool{}
	converges := func(after string) {
		t.Helper()
		took := eventually(t, 30*time.Second, "it converges after "+after, func() bool { return s.converged(t, theirs, revoked) })
		t.Logf("converged %s after %s", took.Round(time.Millisecond), after)
	}
	converges("the start")
	last := ""
	for _, f := range s.faults(t) {
		f.begin()
		jti := s.revokeNew(t)
		revoked[jti] = true
		if last != "" {
			s.lift(t, last) // so that entries leave the list, too
			delete(revoked, last)
		}
		last = jti
		if f.end != nil {
			time.Sleep(300 * time.Millisecond)
			f.end()
			revoked[s.revokeNew(t)] = true
		}
		if f.adds != "" {
			theirs = append(theirs, f.adds)
		}
		converges(f.what)
	}
	for _, name := range []string{publicKeyName + "theirs", "zone-token-signing-key-1"} {
		if k, _ := s.plane.Secret(controlplane.Ref{Name: name}); !strings.HasPrefix(k.Data, "their ") {
			t.Errorf("%s is not as it was: %q", name, k.Data)
		}
	}
	s.bridge.stop(t)
}

// fault is something that goes wrong.
type fault struct {
	what  string
	begin func()
	end   func() // nil: it ends by itself
	adds  string // what somebody else adds to the list that has to stay
}

func (s *synced) faults(t *testing.T) []fault {
	list := controlplane.Ref{Name: zoneList}
	active := controlplane.Ref{Name: publicKeyName + s.keysOf(t)[0].GetKid()}
	restart := func() { s.bridge.kill(); s.startBridge(t) }
	return []fault{
		{what: "5xx", begin: func() { s.plane.FailNext(3, http.StatusServiceUnavailable) }},
		{what: "a write that failed", begin: func() { s.plane.FailWrites(2, http.StatusInternalServerError, false) }},
		{what: "a write that failed and was applied", begin: func() { s.plane.FailWrites(1, http.StatusInternalServerError, true) }},
		{what: "a lost reply", begin: func() { s.plane.LoseReplies(1) }},
		{what: "broken connections", begin: func() { s.plane.Break(3) }},
		{what: "404s", begin: func() { s.plane.FailNext(2, http.StatusNotFound) }},
		{what: "a restart of the control plane", begin: s.planeServer.Stop, end: func() {
			if err := s.planeServer.Start(); err != nil {
				t.Fatal(err)
			}
		}},
		{what: "read-only mode", begin: func() { s.plane.ReadOnly(true) }, end: func() { s.plane.ReadOnly(false) }},
		{what: "slow answers", begin: func() { s.plane.Slow(300 * time.Millisecond) }, end: func() { s.plane.Slow(0) }},
		{what: "another writer", adds: "their-second", begin: func() {
			now, _ := s.plane.Secret(list)
			s.plane.Set(list, now.Data+",their-second", nil)
		}},
		{what: "another writer between read and write, who takes everything out but theirs", begin: func() {
			s.plane.Intrude(list, func(string) string { return "their-token,their-second" })
		}},
		{what: "spaces, newlines and empty entries", begin: func() {
			now, _ := s.plane.Secret(list)
			s.plane.Set(list, ", "+strings.ReplaceAll(now.Data, ",", " ,\n"), nil)
		}},
		{what: "a key that was deleted", begin: func() { s.plane.Drop(active) }},
		{what: "a key that was replaced", begin: func() { s.plane.Set(active, "junk", nil) }},
		{what: "a list that lost its entries", begin: func() { s.plane.Set(list, "their-token,their-second", nil) }},
		{what: "a bridge that was killed", begin: func() { s.bridge.kill() }, end: restart},
		{what: "zonemint that was killed", begin: func() {}, end: func() {
			s.server.kill()
			s.server = s.in.start(t)
		}},
	}
}

// keepAddress has zonemint always start where it was, so that the bridge finds it.
func (s *synced) keepAddress(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile(s.in.config)
	if err != nil {
		t.Fatal(err)
	}
	text = []byte(strings.Replace(string(text), "listen: 127.0.0.1:0", "listen: "+freeAddress(t), 1))
	if err := os.WriteFile(s.in.config, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestKumaSyncReleasesRotations rotates a keyset whose distribution is kuma-sync. As
// long as the control plane is down no token is signed with the new key; the first
// one is signed when the key has been in the control plane for long enough.
func TestKumaSyncReleasesRotations(t *testing.T) {
	s := newSynced(t)
	s.startBridge(t)
	eventually(t, 20*time.Second, "the successor is acknowledged", func() bool { return s.acknowledged(t) })
	first := map[string]time.Time{} // by kid, when its first token came
	issue := func() string {
		resp, err := s.client.tokens.IssueZoneToken(t.Context(), &pb.IssueZoneTokenRequest{Zone: "west", ValidFor: durationpb.New(time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := first[resp.GetKid()]; !ok {
			first[resp.GetKid()] = time.Now()
		}
		return resp.GetKid()
	}
	issue()
	for range rounds(2, 5) {
		s.planeServer.Stop()
		// The successor has been acknowledged, and takes over. The one after it has
		// not.
		known := s.rotate(t)
		eventually(t, 20*time.Second, "tokens are signed with the key that is known", func() bool { return issue() == known })
		next := s.rotate(t)
		for end := time.Now().Add(3 * zoneDelay); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			if issue() == next {
				t.Fatal("a token is signed with a key that is not in the control plane")
			}
		}
		if err := s.planeServer.Start(); err != nil {
			t.Fatal(err)
		}
		eventually(t, 30*time.Second, "tokens are signed with the successor", func() bool { return issue() == next })
		eventually(t, 30*time.Second, "its successor is acknowledged", func() bool { return s.acknowledged(t) })
	}
	wrote := map[string]time.Time{}
	for _, w := range s.plane.Writes() {
		if _, ok := wrote[w.Ref.Name]; !ok {
			wrote[w.Ref.Name] = w.At
		}
	}
	for kid, at := range first {
		since, there := wrote[publicKeyName+kid]
		lead := at.Sub(since)
		t.Logf("key %s was in the control plane %s before its first token came", kid, lead.Round(time.Millisecond))
		if !there || lead < zoneDelay && kid != s.keysOf(t)[0].GetKid() { // the first key signs at once
			t.Errorf("that is too late")
		}
	}
	if want := 1 + 2*rounds(2, 5); len(first) != want {
		t.Errorf("%d keys have signed, want %d", len(first), want)
	}
}

// rotate asks for a rotation, when there is a successor, and returns that.
func (s *synced) rotate(t *testing.T) (kid string) {
	t.Helper()
	eventually(t, 20*time.Second, "there is a successor", func() bool {
		kid = s.published(t).GetKid()
		return kid != ""
	})
	if _, err := s.client.keys.RotateKeyset(t.Context(), &pb.RotateKeysetRequest{Keyset: "zone", Reason: "a test"}); err != nil {
		t.Fatal(err)
	}
	return kid
}

func (s *synced) published(t *testing.T) *pb.SigningKey {
	t.Helper()
	for _, k := range s.keysOf(t) {
		if k.GetState() == "published" {
			return k
		}
	}
	return nil
}

// acknowledged says whether the control plane has acknowledged the successor.
func (s *synced) acknowledged(t *testing.T) bool {
	t.Helper()
	k := s.published(t)
	if k == nil {
		return false
	}
	resp, err := s.client.keys.GetSigningKey(t.Context(), &pb.GetSigningKeyRequest{Keyset: "zone", Serial: k.GetSerial()})
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(resp.GetAcknowledgements(), func(a *pb.Acknowledgement) bool { return a.GetConsumer() == "global" && a.GetHasKey() })
}
