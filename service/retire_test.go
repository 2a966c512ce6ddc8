package service_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"connectrpc.com/connect"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/signer"
	"github.com/zonemint/zonemint/signer/signertest"
	"github.com/zonemint/zonemint/store"
)

func (s *server) retire(t testing.TB, serial int32, force bool) (*pb.RetireSigningKeyResponse, error) {
	t.Helper()
	resp, err := s.as(s.admin).keys.RetireSigningKey(t.Context(), &pb.RetireSigningKeyRequest{Keyset: "zone", Serial: serial, Force: force})
	s.sound(t)
	return resp, err
}

func (s *server) distrust(t testing.TB, req *pb.DistrustSigningKeyRequest) (*pb.DistrustSigningKeyResponse, error) {
	t.Helper()
	req.Keyset = "zone"
	resp, err := s.as(s.admin).keys.DistrustSigningKey(t.Context(), req)
	s.sound(t)
	return resp, err
}

func TestRetire(t *testing.T) {
	s := rotating(t)
	token := s.mint(t, time.Hour)

	// Published: it is abandoned, and another one takes its place.
	if resp := must(s.retire(t, 2, false)); resp.GetSigningKey().GetState() != "abandoned" || !slices.Equal(planOf(resp.GetSteps()), []string{"abandon 2"}) {
		t.Errorf("%v", resp)
	}
	s.settles(t)
	s.states(t, "active", "abandoned", "published")

	// Active: the keyset would issue nothing.
	_, err := s.retire(t, 1, false)
	wantHeld(t, err, "serial 1 signs", "zonemint key rotate zone --now", "force")
	if resp := must(s.retire(t, 1, true)); resp.GetSigningKey().GetState() != "retiring" {
		t.Errorf("%v", resp)
	}
	// A token that is issued all the same is the successor's, which has taken over meanwhile.
	if resp, err := s.issue(t, s.admin); err == nil && resp.GetKid() == s.keyAt(t, 3).GetSigningKey().GetKid() {
		if s.stateOf(t, 3) != "active" {
			t.Errorf("%s has signed, and is %s", resp.GetKid(), s.stateOf(t, 3))
		}
	} else if !heldUp(err) {
		wantNothing(t, resp, err, connect.CodeFailedPrecondition)
	}
	s.become(t, 3, store.StateActive) // once verifiers know it
	s.settles(t)
	s.verifies(t, token.GetToken(), "")

	// Retiring: its tokens would break.
	_, err = s.retire(t, 1, false)
	wantHeld(t, err, "1 live tokens of serial 1 would break")
	resp := must(s.retire(t, 1, true))
	if resp.GetSigningKey().GetState() != "removed" || resp.GetSteps()[0].GetBrokenTokens() != 1 {
		t.Errorf("%v", resp)
	}
	s.verifies(t, token.GetToken(), "unknown_key")
	s.settles(t)

	for serial, code := range map[int32]connect.Code{1: connect.CodeFailedPrecondition, 2: connect.CodeFailedPrecondition, 99: connect.CodeNotFound} {
		_, err := s.retire(t, serial, true)
		wantCode(t, err, code)
	}
}

// A key that cannot be made is given up, and the next one is made.
func TestRetireWhileBeingMade(t *testing.T) {
	w, fake := remote(t, signertest.FakeOptions{})
	s := w.start(t, swift(w), zoneKeyset())
	fake.Inject(signertest.Fault{Op: signertest.OpCreate, Err: signertest.Fail(signer.Denied)})
	must(s.rotate(t, &pb.RotateKeysetRequest{Now: true, Force: true}))
	eventually(t, "it is tried", func() bool { return fake.Calls(signertest.OpCreate) > 2 })
	if resp := must(s.retire(t, 3, false)); resp.GetSigningKey().GetState() != "failed" || !slices.Equal(planOf(resp.GetSteps()), []string{"abandon 3"}) {
		t.Errorf("%v", resp)
	}
	fake.Heal()
	s.settles(t)
	s.become(t, 4, store.StatePublished)
}

func TestDistrust(t *testing.T) {
	s := rotating(t)
	token, other := s.mint(t, time.Hour), s.mint(t, time.Hour)
	_, err := s.distrust(t, &pb.DistrustSigningKeyRequest{Serial: 1})
	wantHeld(t, err, "2 live tokens of serial 1 would be refused within", "force")
	s.verifies(t, token.GetToken(), "")

	plan := must(s.distrust(t, &pb.DistrustSigningKeyRequest{Serial: 1, DryRun: true, Force: true}))
	if got := planOf(plan.GetSteps()); !slices.Equal(got, []string{"distrust 1", "activate 2", "make 3"}) || plan.GetBrokenTokens() != 2 || plan.GetSteps()[0].GetBrokenTokens() != 2 {
		t.Errorf("the plan is %q: %v", got, plan)
	}
	s.states(t, "active", "published")

	resp := must(s.distrust(t, &pb.DistrustSigningKeyRequest{Serial: 1, Force: true, Reason: "leaked"}))
	if k := resp.GetSigningKey(); k.GetState() != "distrusted" || k.GetReason() != "leaked" || resp.GetBrokenTokens() != 2 || resp.GetBelievedFor().AsDuration() != swiftWait {
		t.Errorf("%v", resp)
	}
	for _, dead := range []string{token.GetToken(), other.GetToken()} {
		s.verifies(t, dead, "unknown_key")
	}
	if kids := s.served(t, "zone"); slices.Contains(kids, token.GetKid()) {
		t.Errorf("distrusted, and served among %v", kids)
	}
	if fresh := s.mint(t, time.Hour); fresh.GetKid() == token.GetKid() {
		t.Error("the distrusted key signs")
	}
	s.settles(t)
	s.states(t, "distrusted", "active", "published")
}

// Without force, and without tokens that would break, a key is distrusted at
// once, and the keyset issues nothing until verifiers know the successor.
func TestDistrustBeforeTheSuccessorIsKnown(t *testing.T) {
	s := rotating(t)
	s.unknown(t)
	if resp := must(s.distrust(t, &pb.DistrustSigningKeyRequest{Serial: 1})); resp.GetSigningKey().GetState() != "distrusted" || resp.GetBrokenTokens() != 0 {
		t.Errorf("%v", resp)
	}
	s.become(t, 3, store.StateActive)
	three := s.keyAt(t, 3).GetSigningKey()
	if waited := three.GetActivatedAt().AsTime().Sub(three.GetPublishedAt().AsTime()); waited < swiftWait {
		t.Errorf("serial 3 signs %s after it was published", waited)
	}
	s.settles(t)
}

func TestDistrustOthers(t *testing.T) {
	s := rotating(t)
	old := s.mint(t, time.Hour)
	if resp := must(s.distrust(t, &pb.DistrustSigningKeyRequest{Serial: 2})); resp.GetSigningKey().GetState() != "distrusted" {
		t.Errorf("a published key: %v", resp)
	}
	s.settles(t)
	s.states(t, "active", "distrusted", "published")
	must(s.rotate(t, &pb.RotateKeysetRequest{Now: true, Force: true}))
	fresh := s.mint(t, time.Hour)
	_, err := s.distrust(t, &pb.DistrustSigningKeyRequest{Serial: 1})
	wantHeld(t, err, "1 live tokens of serial 1")
	if resp := must(s.distrust(t, &pb.DistrustSigningKeyRequest{Serial: 1, Force: true})); resp.GetBrokenTokens() != 1 {
		t.Errorf("a retiring key: %v", resp)
	}
	s.verifies(t, old.GetToken(), "unknown_key")
	s.verifies(t, fresh.GetToken(), "")
	s.settles(t)
	_, err = s.distrust(t, &pb.DistrustSigningKeyRequest{Serial: 1, Force: true})
	wantHeld(t, err, "has ended")
}

// The successor is not made yet when the active key is distrusted.
func TestDistrustWithoutSuccessor(t *testing.T) {
	w, fake := remote(t, signertest.FakeOptions{})
	s := w.start(t, swift(w), zoneKeyset())
	must(s.retire(t, 2, false))
	fake.Inject(signertest.Fault{Op: signertest.OpCreate, Err: signertest.Fail(signer.Denied)})
	s.mint(t, time.Hour)
	must(s.distrust(t, &pb.DistrustSigningKeyRequest{Serial: 1, Force: true}))
	if s.sound(t); slices.Contains(s.served(t, "zone"), s.keyAt(t, 1).GetSigningKey().GetKid()) {
		t.Error("it is served")
	}
	fake.Heal()
	s.settles(t)
	s.mint(t, time.Hour)
}

// Moving to another backend is a rotation like any other.
func TestMoveToAnotherBackend(t *testing.T) {
	w, from := remote(t, signertest.FakeOptions{})
	to := signertest.NewFake(t, signertest.FakeOptions{})
	w.backends["hsm"] = to
	s := w.start(t, swift(w), zoneKeyset())
	old := s.mint(t, time.Hour)

	_, err := s.rotate(t, &pb.RotateKeysetRequest{Backend: "hsm", Now: true})
	wantHeld(t, err, `no published key in backend "hsm" yet`)
	_, err = s.rotate(t, &pb.RotateKeysetRequest{Backend: "nosuch"})
	wantCode(t, err, connect.CodeInvalidArgument)
	plan := must(s.rotate(t, &pb.RotateKeysetRequest{Backend: "hsm", DryRun: true}))
	if got := planOf(plan.GetSteps()); !slices.Contains(got, "make 3") || !slices.Contains(got, "activate 3") {
		t.Errorf("the plan is %q", got)
	}
	must(s.rotate(t, &pb.RotateKeysetRequest{Backend: "hsm"}))
	if _, err := s.rotate(t, &pb.RotateKeysetRequest{Backend: "hsm", FromSerial: 1}); err != nil { // asked for already
		wantHeld(t, err, "serial 1 of keyset \"zone\" does not sign") // done already
	}
	s.become(t, 3, store.StateActive)
	s.settles(t)
	s.states(t, "retiring", "abandoned", "active", "published")
	if fresh := s.mint(t, time.Hour); fresh.GetKid() != s.keyAt(t, 3).GetSigningKey().GetKid() {
		t.Errorf("issued with %s", fresh.GetKid())
	}
	// The old backend may be gone for good.
	from.Inject(signertest.Fault{Op: signertest.OpOpen, Err: signertest.Fail(signer.Unavailable)})
	from.Inject(signertest.Fault{Op: signertest.OpSign, Err: signertest.Fail(signer.Unavailable)})
	s.verifies(t, old.GetToken(), "")
	s.mint(t, time.Hour)
	if len(from.Keys()) != 2 || len(to.Keys()) != 2 {
		t.Errorf("the backends have %d and %d keys", len(from.Keys()), len(to.Keys()))
	}
}

// A backend is down while the successor is to be made: it is tried less and less
// often, and made once.
func TestBackendDownWhileMaking(t *testing.T) {
	w, fake := remote(t, signertest.FakeOptions{ConsistencyWindow: 100 * time.Millisecond})
	s := w.start(t, swift(w), zoneKeyset())
	fake.Inject(signertest.Fault{Op: signertest.OpCreate, Times: 1, Apply: true, Err: signertest.Fail(signer.Unavailable)})
	fake.Inject(signertest.Fault{Op: signertest.OpFind, Times: 2})
	fake.Inject(signertest.Fault{Op: signertest.OpFind, Err: signertest.Fail(signer.Unavailable)})
	finds := fake.Calls(signertest.OpFind)
	must(s.rotate(t, &pb.RotateKeysetRequest{Now: true, Force: true}))
	began := time.Now()
	time.Sleep(2500 * time.Millisecond) // 25 heartbeats
	eventually(t, "it is tried again", func() bool { return fake.Calls(signertest.OpFind)-finds > 1 })
	if n, took := fake.Calls(signertest.OpFind)-finds, time.Since(began); n > 4+int(took/time.Second) {
		t.Errorf("in %s it was tried %d times", took, n)
	}
	s.sound(t)
	s.mint(t, time.Hour) // what is there goes on
	fake.Heal()
	eventually(t, "it is made", func() bool {
		k, err := s.as(s.admin).keys.GetSigningKey(context.Background(), &pb.GetSigningKeyRequest{Keyset: "zone", Serial: 3})
		return err == nil && k.GetSigningKey().GetState() == "published"
	})
	s.settles(t)
	if n := len(fake.Keys()); n != 3 {
		t.Errorf("the backend has %d keys, want 3", n)
	}
}
