package service_test

import (
	"testing"

	"connectrpc.com/connect"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/signer"
	"github.com/zonemint/zonemint/signer/signertest"
)

// down has every call of a fake find that nobody is there.
func down(b *signertest.Fake) {
	for _, op := range signertest.Ops() {
		b.Inject(signertest.Fault{Op: op, Err: signertest.Fail(signer.Unavailable)})
	}
}

func zoneIn(backend string) *pb.Keyset {
	return &pb.Keyset{Name: "zone", Profile: pb.Profile_PROFILE_ZONE, Algorithm: "ES256", Backend: backend}
}

// A replica that gets no requests, because it says that it is not ready, finds out by
// itself that a backend is back.
func TestReadinessComesBackWithoutRequests(t *testing.T) {
	w := newWorld(t)
	hsm := signertest.NewFake(t, signertest.FakeOptions{})
	w.backends["hsm"] = hsm
	s := w.start(t, w.config(), zoneIn("hsm"))
	if _, err := s.issue(t, s.admin); err != nil {
		t.Fatal(err)
	}
	down(hsm)
	for range 10 {
		_, err := s.issue(t, s.admin)
		wantCode(t, err, connect.CodeUnavailable)
	}
	if r := s.private("/healthz/ready"); r.Code != 503 {
		t.Errorf("readiness is %d %q", r.Code, r.Body)
	}
	hsm.Heal()
	eventually(t, "the replica is ready", func() bool { return s.private("/healthz/ready").Code == 200 })
	if _, err := s.issue(t, s.admin); err != nil {
		t.Error(err)
	}
}

// A replica starts while the backend of its keys is away, serves them, says what is
// wrong, and signs when the backend is there.
func TestStartWhileTheBackendIsAway(t *testing.T) {
	w := newWorld(t)
	hsm := signertest.NewFake(t, signertest.FakeOptions{})
	w.backends["hsm"] = hsm
	before := w.start(t, w.config(), zoneIn("hsm"))
	_, keys := before.get(t, "/keysets/zone/jwks.json")
	down(hsm)

	s := w.start(t, w.config())
	_, err := s.issue(t, s.admin)
	wantCode(t, err, connect.CodeUnavailable)
	if resp, body := s.get(t, "/keysets/zone/jwks.json"); resp.StatusCode != 200 || body != keys {
		t.Errorf("the keys are served with status %d: %s", resp.StatusCode, body)
	}
	eventually(t, "readiness names the backend", func() bool {
		r := s.private("/healthz/ready")
		return r.Code == 503 && r.Body.String() == "backend \"hsm\" does not answer\n"
	})
	hsm.Heal()
	eventually(t, "the replica is ready", func() bool { return s.private("/healthz/ready").Code == 200 })
	if _, err := s.issue(t, s.admin); err != nil {
		t.Error(err)
	}
}

// A backend whose keys open without a call, as those of Vault do, is asked at the start.
func TestABackendIsAskedAtTheStart(t *testing.T) {
	w := newWorld(t)
	hsm := signertest.NewFake(t, signertest.FakeOptions{})
	w.backends["hsm"] = hsm
	w.start(t, w.config(), zoneIn("hsm"))
	hsm.Inject(signertest.Fault{Op: signertest.OpSign, Err: signertest.Fail(signer.Unavailable)})
	s := w.start(t, w.config())
	eventually(t, "the replica is not ready", func() bool { return s.private("/healthz/ready").Code == 503 })
	hsm.Heal()
	eventually(t, "the replica is ready", func() bool { return s.private("/healthz/ready").Code == 200 })
}

// Keys of a keyset that was created while its backend was away are made when that
// is there, however long it took.
func TestKeysAreMadeWhenTheBackendComes(t *testing.T) {
	w := newWorld(t)
	hsm := signertest.NewFake(t, signertest.FakeOptions{})
	w.backends["hsm"] = hsm
	s := w.start(t, w.config(), &pb.Keyset{Name: "user", Profile: pb.Profile_PROFILE_USER, Algorithm: "ES256"})
	down(hsm)
	if err := s.EnsureKeysetLater(t.Context(), zoneIn("hsm")); err != nil {
		t.Fatalf("a keyset whose backend is away: %v", err)
	}
	if resp, body := s.get(t, "/keysets/zone/jwks.json"); resp.StatusCode != 200 {
		t.Errorf("its keys are served with status %d: %s", resp.StatusCode, body)
	}
	// Meanwhile the pauses between the tries grow.
	calls := hsm.Calls(signertest.OpFind)
	eventually(t, "the backend is asked over and over", func() bool { return hsm.Calls(signertest.OpFind) > calls+5 })
	hsm.Heal()
	eventually(t, "there are tokens", func() bool { _, err := s.issue(t, s.admin); return err == nil })
}
