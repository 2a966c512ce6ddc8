package service_test

import (
	"crypto/rand"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/signer"
	"github.com/zonemint/zonemint/signer/signertest"
	"github.com/zonemint/zonemint/store"
)

func (s *server) destroy(t testing.TB, req *pb.DestroySigningKeyRequest) (*pb.DestroySigningKeyResponse, error) {
	t.Helper()
	req.Keyset = "zone"
	resp, err := s.as(s.admin).keys.DestroySigningKey(t.Context(), req)
	s.sound(t)
	return resp, err
}

func (s *server) row(t testing.TB, serial int) store.SigningKey {
	t.Helper()
	l, faults, err := s.db.Lifecycles(t.Context())
	if err != nil || len(faults) > 0 {
		t.Fatal(err, faults)
	}
	return must(s.db.SigningKey(t.Context(), l[0].Keyset.ID, serial))
}

func TestDestroyRefused(t *testing.T) {
	s := rotating(t)
	s.mint(t, time.Hour)
	must(s.rotate(t, &pb.RotateKeysetRequest{Now: true, Force: true}))
	s.settles(t)
	for serial, state := range map[int32]string{1: "retiring", 2: "active", 3: "published"} {
		_, err := s.destroy(t, &pb.DestroySigningKeyRequest{Serial: serial})
		wantHeld(t, err, "is "+state+": only keys that are removed, distrusted, abandoned or failed")
		if len(s.row(t, int(serial)).Ref) == 0 {
			t.Errorf("the %s key is gone", state)
		}
	}
	_, err := s.destroy(t, &pb.DestroySigningKeyRequest{Serial: 9})
	wantCode(t, err, connect.CodeNotFound)
	operator := s.as(s.apiToken(t, store.APIToken{Name: "o", Roles: []string{"key-operator"}}))
	_, err = operator.keys.DestroySigningKey(t.Context(), &pb.DestroySigningKeyRequest{Keyset: "zone", Serial: 1})
	wantCode(t, err, connect.CodePermissionDenied)
}

// A local key is its reference: erasing that destroys it.
func TestDestroyLocal(t *testing.T) {
	s := rotating(t)
	token := s.mint(t, time.Hour)
	must(s.distrust(t, &pb.DistrustSigningKeyRequest{Serial: 1, Force: true}))
	s.settles(t) // the audit has nothing else in between
	plan := must(s.destroy(t, &pb.DestroySigningKeyRequest{Serial: 1, DryRun: true}))
	if got := planOf(plan.GetSteps()); !slices.Equal(got, []string{"destroy 1"}) || plan.GetSigningKey().GetDestroyedAt() != nil || len(s.row(t, 1).Ref) == 0 {
		t.Errorf("the plan is %q: %v", got, plan)
	}
	first := must(s.destroy(t, &pb.DestroySigningKeyRequest{Serial: 1, Reason: "leaked"}))
	again := must(s.destroy(t, &pb.DestroySigningKeyRequest{Serial: 1}))
	if row := s.row(t, 1); first.GetSigningKey().GetDestroyedAt() == nil || row.Ref != nil || row.State != store.StateDistrusted || len(row.PublicKey) == 0 {
		t.Errorf("destroyed is %+v", row)
	}
	if !again.GetSigningKey().GetDestroyedAt().AsTime().Equal(first.GetSigningKey().GetDestroyedAt().AsTime()) {
		t.Errorf("destroyed again: %v", again)
	}
	if all := s.audited(t); !slices.Contains(all, "signing-key.destroy") || all[len(all)-1] != "signing-key.destroyed" {
		t.Errorf("the audit says %v", all)
	}
	s.verifies(t, token.GetToken(), "unknown_key")
	s.settles(t)
}

// The backend's answer to a Destroy is lost, or it is down: the key can be
// destroyed again.
func TestDestroyRemote(t *testing.T) {
	for name, lost := range map[string]bool{"refused": false, "reply lost": true} {
		t.Run(name, func(t *testing.T) {
			w, fake := remote(t, signertest.FakeOptions{})
			s := w.start(t, swift(w), zoneKeyset())
			must(s.retire(t, 2, false))
			s.settles(t)
			fake.Inject(signertest.Fault{Op: signertest.OpDestroy, Times: 1, Apply: lost, Err: signertest.Fail(signer.Unavailable)})
			_, err := s.destroy(t, &pb.DestroySigningKeyRequest{Serial: 2})
			wantCode(t, err, connect.CodeUnavailable)
			if k := s.keyAt(t, 2).GetSigningKey(); k.GetDestroyedAt() != nil {
				t.Errorf("nobody knows, but the row says %s", k.GetDestroyedAt().AsTime())
			}
			if resp := must(s.destroy(t, &pb.DestroySigningKeyRequest{Serial: 2})); resp.GetSigningKey().GetDestroyedAt() == nil || len(fake.Keys()) != 2 {
				t.Errorf("%v, the backend has %v", resp, fake.Keys())
			}
		})
	}
}

// What was made of a key that failed is found by its label.
func TestDestroyFailed(t *testing.T) {
	w, fake := remote(t, signertest.FakeOptions{})
	s := w.start(t, swift(w), zoneKeyset())
	fake.Inject(signertest.Fault{Op: signertest.OpSign, Err: signertest.Fail(signer.Denied)}) // no probe succeeds
	must(s.rotate(t, &pb.RotateKeysetRequest{Now: true, Force: true}))
	eventually(t, "it is made", func() bool { return len(fake.Keys()) == 3 })
	must(s.retire(t, 3, false))
	fake.Heal()
	s.settles(t)
	if s.stateOf(t, 3) != "failed" || len(fake.Keys()) != 4 {
		t.Errorf("serial 3 is %s, the backend has %d keys", s.stateOf(t, 3), len(fake.Keys()))
	}
	must(s.destroy(t, &pb.DestroySigningKeyRequest{Serial: 3}))
	if len(fake.Keys()) != 3 {
		t.Errorf("the backend has %d keys", len(fake.Keys()))
	}
}

func TestReconcile(t *testing.T) {
	w, fake := remote(t, signertest.FakeOptions{})
	hsm := signertest.NewFake(t, signertest.FakeOptions{})
	w.backends["hsm"] = hsm
	s := w.start(t, swift(w), zoneKeyset())
	reconcile := func(backends ...string) *pb.ReconcileSigningKeysResponse {
		t.Helper()
		return must(s.as(s.admin).keys.ReconcileSigningKeys(t.Context(), &pb.ReconcileSigningKeysRequest{Backends: backends}))
	}
	if resp := reconcile(); resp.GetFound() != 2 || len(resp.GetUnknown()) != 0 || len(resp.GetMissing()) != 0 || len(resp.GetFailed()) != 0 {
		t.Errorf("all is well, and it finds %v", resp)
	}
	orphan := signer.Spec{Keyset: "zone", Serial: 7, Label: signer.NewLabel(), Algorithm: signer.ES256}
	ref := must(signer.Create(t.Context(), hsm, orphan))
	must(signer.Create(t.Context(), hsm, signer.Spec{Keyset: "zone", Serial: 8, Label: "not-ours-" + rand.Text(), Algorithm: signer.ES256}))
	if err := signer.Destroy(t.Context(), fake, signer.Spec{Keyset: "zone", Serial: 2, Label: s.row(t, 2).Label, Algorithm: signer.ES256}, s.row(t, 2).Ref); err != nil {
		t.Fatal(err)
	}
	resp := reconcile()
	if len(resp.GetUnknown()) != 1 || len(resp.GetMissing()) != 1 || resp.GetMissing()[0].GetSerial() != 2 {
		t.Fatalf("it finds %v", resp)
	}
	if u := resp.GetUnknown()[0]; u.GetBackend() != "hsm" || u.GetLabel() != orphan.Label || u.GetReference() != string(ref) || u.GetKeyset() != "zone" || u.GetSerial() != 7 {
		t.Errorf("the orphan is %v", u)
	}
	if resp := reconcile("local"); resp.GetFound() != 1 || len(resp.GetUnknown()) != 0 || len(resp.GetMissing()) != 1 {
		t.Errorf("in one backend it finds %v", resp)
	}
	if len(hsm.Keys()) != 2 || s.stateOf(t, 2) != "published" {
		t.Error("it has changed something")
	}
	hsm.Inject(signertest.Fault{Op: signertest.OpList, Err: signertest.Fail(signer.Unavailable)})
	if resp := reconcile(); len(resp.GetFailed()) != 1 || !strings.HasPrefix(resp.GetFailed()[0], "hsm: ") || len(resp.GetMissing()) != 1 {
		t.Errorf("with a backend down it finds %v", resp)
	}
	_, err := s.as(s.admin).keys.ReconcileSigningKeys(t.Context(), &pb.ReconcileSigningKeysRequest{Backends: []string{"nosuch"}})
	wantCode(t, err, connect.CodeInvalidArgument)
	bounded := s.as(s.apiToken(t, store.APIToken{Name: "o", Roles: []string{"key-operator"}, Keysets: []string{"zone"}}))
	_, err = bounded.keys.ReconcileSigningKeys(t.Context(), &pb.ReconcileSigningKeysRequest{})
	wantCode(t, err, connect.CodePermissionDenied)
}

// A keyset that another replica has just made is known to the database, though not
// to this replica's ring.
func TestReconcileBehind(t *testing.T) {
	w, fake := remote(t, signertest.FakeOptions{})
	cfg := w.config()
	cfg.LeaseTTL = time.Hour // no heartbeat comes to tell it
	s := w.start(t, cfg, zoneKeyset())
	w.engine.muffle()
	label := signer.NewLabel()
	_, keys, err := w.db.CreateKeyset(t.Context(), store.Keyset{
		Name: "user", Profile: store.ProfileUser, Algorithm: "ES256", Backend: "local", Distribution: store.DistributionJWKS,
	}, []store.NewKey{{Role: store.RolePrimary, Label: label}}, store.Actor{Name: "cli/test"})
	if err != nil || len(keys) != 1 {
		t.Fatal(err)
	}
	must(signer.Create(t.Context(), fake, signer.Spec{Keyset: "user", Serial: 1, Label: label, Algorithm: signer.ES256}))
	resp := must(s.as(s.admin).keys.ReconcileSigningKeys(t.Context(), &pb.ReconcileSigningKeysRequest{}))
	if len(resp.GetUnknown()) != 0 {
		t.Errorf("it finds %v, which a row knows", resp.GetUnknown())
	}
}

// The label of a row that was tampered with may be any: nothing must be called
// unknown by mistake.
func TestReconcileTampered(t *testing.T) {
	w, _ := remote(t, signertest.FakeOptions{})
	s := w.start(t, swift(w), zoneKeyset())
	if _, err := w.look(t).ExecContext(t.Context(), "UPDATE signing_keys SET reason = 'edited' WHERE serial = 2"); err != nil {
		t.Fatal(err)
	}
	resp, err := s.as(s.admin).keys.ReconcileSigningKeys(t.Context(), &pb.ReconcileSigningKeysRequest{})
	if len(resp.GetUnknown()) != 0 {
		t.Errorf("it finds %v, %v", resp.GetUnknown(), err)
	}
}
