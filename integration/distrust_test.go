package integration

import (
	"context"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/token"
)

// TestEmergencies plays the two emergencies under load. The successor takes over
// within the call, and no token of the key before breaks. Then the key that signs
// is distrusted, and no verifier accepts it for longer than the answer says: while
// all replicas are well, and while one was cut off from the database just before.
func TestEmergencies(t *testing.T) {
	zone := keyset{"zone", "zone", "ES256"}
	f := newFleet(t, zone)
	tr := f.startTraffic(t, zone)
	tokens := f.longLived(t)

	if _, err := f.rotate(t.Context(), "zone", true); err != nil {
		t.Fatal(err)
	}
	checked := 0
	for start := time.Now(); time.Since(start) < fleetLease+fleetMaxAge+fleetSkew; time.Sleep(50 * time.Millisecond) {
		for _, err := range tr.audiences[0].verify(t.Context(), tokens) {
			t.Error("after the rotation: ", err)
		}
		checked++
	}
	t.Logf("a token of the key before was good %d times after it, with everybody", checked)

	for range rounds(1, 10) {
		f.playDistrust(t, tr, nil)
		f.playDistrust(t, tr, f.members[2])
	}
	tr.stop(t)
	f.stop(t)
}

// longLived returns a token that outlives the test.
func (f *fleet) longLived(t *testing.T) issued {
	t.Helper()
	return issueFrom(t, f.members[0].client, "zone", "east")
}

// playDistrust distrusts the key that signs and watches how long who believes it.
func (f *fleet) playDistrust(t *testing.T, tr *traffic, cut *member) {
	t.Helper()
	f.awaitSuccessor(t)
	k := f.longLived(t)
	for _, err := range tr.audiences[0].verify(t.Context(), k) {
		t.Error("before its key is distrusted: ", err)
	}
	tr.expect(k.kid)
	who := "all replicas are well"
	if cut != nil {
		who = cut.name + " was just cut off"
		mend := cut.cutOff(loud)
		defer f.awaitReturn(t, cut)
		defer mend()
	}
	asked, serial := time.Now(), f.serialOf(t, k.kid)
	distrust := func() (*pb.DistrustSigningKeyResponse, error) {
		return f.members[0].client.keys.DistrustSigningKey(t.Context(), &pb.DistrustSigningKeyRequest{
			Keyset: "zone", Serial: serial, Reason: "a test", Force: true,
		})
	}
	resp, err := distrust()
	for connect.CodeOf(err) == connect.CodeAborted { // another replica was at the keys of the keyset
		resp, err = distrust()
	}
	if err != nil {
		t.Fatal(err)
	}
	answered, stated := time.Now(), resp.GetBelievedFor().AsDuration()
	last := tr.audiences[0].lastAccepted(t, k, answered.Add(stated+time.Second))
	var slowest, blind time.Duration
	for c, at := range last {
		d := at.Sub(answered)
		if cut != nil && c.pinned == cut {
			blind = d // it asks nobody but a replica that is cut off, and cannot hear of it
			continue
		}
		slowest = max(slowest, d)
		if d > stated+f.machine.paused(answered) {
			t.Errorf("%s accepted a token of the distrusted key %s after the answer, which states %s", c.name, d, stated)
		}
	}
	t.Logf("%s: the answer came after %s, states %s, and says that %d tokens die; some verifier accepted one until %s after it", who,
		answered.Sub(asked).Round(time.Millisecond), stated, resp.GetBrokenTokens(), slowest.Round(time.Millisecond))
	if cut != nil {
		t.Logf("the verifier that asks nobody but %s still did %s after it, when it was last looked at", cut.name, blind.Round(time.Millisecond))
	}
	now := f.mustActive(t, "zone")
	if now.GetKid() == k.kid {
		t.Error("the distrusted key still signs")
	}
	for _, err := range tr.audiences[0].verify(t.Context(), f.longLived(t)) {
		t.Error("after the key was distrusted: ", err)
	}
}

// awaitSuccessor waits until every verifier knows the key that is to sign next.
func (f *fleet) awaitSuccessor(t *testing.T) {
	t.Helper()
	eventually(t, 20*time.Second, "the successor may sign", func() bool {
		_, err := f.members[0].client.keys.RotateKeyset(t.Context(), &pb.RotateKeysetRequest{Keyset: "zone", Now: true, DryRun: true})
		return err == nil
	})
}

func (f *fleet) serialOf(t *testing.T, kid string) int32 {
	t.Helper()
	keys, err := f.keys(t.Context(), "zone")
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		if k.GetKid() == kid {
			return k.GetSerial()
		}
	}
	t.Fatalf("no key is called %s", kid)
	return 0
}

// lastAccepted has all verifiers look at a token again and again until a moment,
// and returns when each was asked last and accepted it.
func (a *audience) lastAccepted(t *testing.T, k issued, until time.Time) map[*checker]time.Time {
	t.Helper()
	var mu sync.Mutex
	var watchers sync.WaitGroup
	last := map[*checker]time.Time{}
	for _, c := range a.checkers {
		watchers.Go(func() {
			for asked := time.Now(); asked.Before(until); asked = time.Now() {
				_, err := c.verifier.Verify(context.WithoutCancel(t.Context()), k.token, token.RequireZone(k.zone))
				if err == nil {
					mu.Lock()
					last[c] = asked
					mu.Unlock()
				} else if token.Reason(err) != "unknown_key" {
					t.Errorf("%s refuses the token of a distrusted key because of %v", c.name, err)
				}
				time.Sleep(10 * time.Millisecond)
			}
		})
	}
	watchers.Wait()
	return last
}
