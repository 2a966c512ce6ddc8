package service_test

import (
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/zonemint/zonemint/backends/local"
	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/signer"
	"github.com/zonemint/zonemint/signer/signertest"
	"github.com/zonemint/zonemint/store"
)

// A key that somebody else has made in the backend becomes the successor, and the
// one that signs next.
func TestAdoptAKeyOfTheBackend(t *testing.T) {
	w, fake := remote(t, signertest.FakeOptions{})
	s := w.start(t, swift(w), zoneKeyset())
	name := fake.Plant(t, signer.ES256)
	plan := must(s.rotate(t, &pb.RotateKeysetRequest{Adopt: name, DryRun: true}))
	if len(plan.GetSigningKeys()) != 2 || len(plan.GetSteps()) == 0 {
		t.Errorf("a plan has %d steps and there are %d keys", len(plan.GetSteps()), len(plan.GetSigningKeys()))
	}
	must(s.rotate(t, &pb.RotateKeysetRequest{Adopt: name, Reason: "made by the key ceremony"}))
	s.become(t, 3, store.StateActive)
	key := s.keyAt(t, 3).GetSigningKey()
	if key.GetAdopted() != name {
		t.Errorf("serial 3 was adopted as %q, want %q", key.GetAdopted(), name)
	}
	if tok := s.mint(t, time.Hour); tok.GetKid() != key.GetKid() {
		t.Errorf("%s signs, want %s", tok.GetKid(), key.GetKid())
	} else {
		s.verifies(t, tok.GetToken(), "")
	}
	must(s.rotate(t, &pb.RotateKeysetRequest{Now: true, Force: true}))
	s.settles(t)
	// Reconciling does not miss a key that no listing shows.
	if diff := must(s.as(s.admin).keys.ReconcileSigningKeys(t.Context(), &pb.ReconcileSigningKeysRequest{})); len(diff.GetMissing()) != 0 || len(diff.GetUnknown()) != 0 {
		t.Errorf("missing %v, unknown %v", diff.GetMissing(), diff.GetUnknown())
	}
	// What zonemint did not make it does not destroy unless somebody insists.
	must(s.distrust(t, &pb.DistrustSigningKeyRequest{Serial: 3, Force: true}))
	destroy := &pb.DestroySigningKeyRequest{Keyset: "zone", Serial: 3}
	_, err := s.as(s.admin).keys.DestroySigningKey(t.Context(), destroy)
	wantHeld(t, err, "was adopted", "force")
	destroy.Force = true
	must(s.as(s.admin).keys.DestroySigningKey(t.Context(), destroy))
}

// What cannot be adopted is refused before anything is written.
func TestWhatIsNotAdopted(t *testing.T) {
	w, fake := remote(t, signertest.FakeOptions{})
	w.backends["disk"] = local.New(nil, local.Options{Insecure: true})
	s := w.start(t, swift(w), zoneKeyset())
	name := fake.Plant(t, signer.ES256)
	must(s.rotate(t, &pb.RotateKeysetRequest{Adopt: name}))
	s.become(t, 3, store.StateActive)
	s.settles(t)
	for what, c := range map[string]struct {
		req  *pb.RotateKeysetRequest
		want connect.Code
	}{
		"a key that is ours already":       {&pb.RotateKeysetRequest{Adopt: name}, connect.CodeInvalidArgument},
		"a key that does not exist":        {&pb.RotateKeysetRequest{Adopt: "fake-key-99"}, connect.CodeInvalidArgument},
		"what is no name":                  {&pb.RotateKeysetRequest{Adopt: "?"}, connect.CodeInvalidArgument},
		"a key for another algorithm":      {&pb.RotateKeysetRequest{Adopt: fake.Plant(t, signer.EdDSA)}, connect.CodeInvalidArgument},
		"a key of a backend that has none": {&pb.RotateKeysetRequest{Backend: "disk", Adopt: name}, connect.CodeInvalidArgument},
		"a key that is to sign at once":    {&pb.RotateKeysetRequest{Adopt: fake.Plant(t, signer.ES256), Now: true}, connect.CodeFailedPrecondition},
	} {
		_, err := s.rotate(t, c.req)
		wantCode(t, err, c.want)
		if t.Failed() {
			t.Fatal(what)
		}
	}
	narrow := s.as(s.apiToken(t, store.APIToken{Name: "narrow", Roles: []string{"admin"}, Keysets: []string{"zone"}}))
	_, err := narrow.keys.RotateKeyset(t.Context(), &pb.RotateKeysetRequest{Keyset: "zone", Adopt: fake.Plant(t, signer.ES256)})
	wantCode(t, err, connect.CodePermissionDenied)
	operator := s.as(s.apiToken(t, store.APIToken{Name: "operator", Roles: []string{"key-operator"}}))
	_, err = operator.keys.RotateKeyset(t.Context(), &pb.RotateKeysetRequest{Keyset: "zone", Adopt: fake.Plant(t, signer.ES256)})
	wantCode(t, err, connect.CodePermissionDenied)
	s.settles(t)
}
