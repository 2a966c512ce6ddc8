package service_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/service"
	"github.com/zonemint/zonemint/signer"
	"github.com/zonemint/zonemint/signer/signertest"
	"github.com/zonemint/zonemint/store"
)

// remote is a world whose keys are in a backend that remembers them.
func remote(t *testing.T, opts signertest.FakeOptions) (*world, *signertest.Fake) {
	t.Helper()
	w := newWorld(t)
	fake := signertest.NewFake(t, opts)
	w.backends["local"] = fake
	return w, fake
}

// brisk is a configuration with a heartbeat every 100ms.
func brisk(w *world) service.Config {
	cfg := w.config()
	cfg.LeaseTTL = 600 * time.Millisecond
	return cfg
}

// checkKeyset checks what holds of every finished keyset: one key signs, its
// successor is published, and the backend has these two keys and no other.
func checkKeyset(t *testing.T, w *world, fake *signertest.Fake) {
	t.Helper()
	ring, err := w.db.LoadRing(t.Context())
	if err != nil || len(ring.Keysets) != 1 || len(ring.Keys) != 2 || len(ring.Faults) != 0 {
		t.Fatalf("%d keysets, %d keys, %v, %v", len(ring.Keysets), len(ring.Keys), ring.Faults, err)
	}
	if a, b := ring.Keys[0], ring.Keys[1]; a.State != store.StateActive || b.State != store.StatePublished {
		t.Errorf("keys 1 and 2 are %s and %s", a.State, b.State)
	}
	labels := map[string]bool{}
	for _, spec := range fake.Keys() {
		labels[spec.Label] = true
	}
	for _, k := range ring.Keys {
		if !labels[k.Label] || !strings.HasPrefix(k.KID, fmt.Sprintf("zone-%d-", k.Serial)) {
			t.Errorf("key %s (%s) is not the backend's", k.KID, k.Label)
		}
	}
	if n := len(fake.Keys()); n != 2 {
		t.Errorf("the backend has %d keys, want 2", n)
	}
}

func (s *server) finished() bool {
	ring, err := s.db.LoadRing(context.Background())
	return err == nil && len(ring.Keys) == 2 && ring.Keys[0].State == store.StateActive && ring.Keys[1].State == store.StatePublished
}

// A process dies somewhere in the making of a keyset, and another one takes over
// once the dead one's hold on the key has run out.
func TestAnotherReplicaFinishes(t *testing.T) {
	lost := signertest.Fault{Op: signertest.OpCreate, Times: 1, Apply: true, Err: signertest.Fail(signer.Unavailable)}
	refused := signertest.Fault{Op: signertest.OpCreate, Times: 1, Err: signertest.Fail(signer.Unavailable)}
	probe := signertest.Fault{Op: signertest.OpSign, Times: 1, Err: signertest.Fail(signer.Unavailable)}
	for name, crash := range map[string]func(*world, *signertest.Fake){
		"create reply lost": func(_ *world, f *signertest.Fake) { f.Inject(lost) },
		"create refused":    func(_ *world, f *signertest.Fake) { f.Inject(refused) },
		"probe failed":      func(_ *world, f *signertest.Fake) { f.Inject(probe) },
		"second key lost": func(_ *world, f *signertest.Fake) {
			f.Inject(signertest.Fault{Op: signertest.OpCreate, Times: 1})
			f.Inject(lost)
		},
		"at the row":              func(w *world, _ *signertest.Fake) { w.engine.budget.Store(1) },
		"at the first claim":      func(w *world, _ *signertest.Fake) { w.engine.budget.Store(2) },
		"at the first publishing": func(w *world, _ *signertest.Fake) { w.engine.budget.Store(3) },
		"at the second claim":     func(w *world, _ *signertest.Fake) { w.engine.budget.Store(4) },
		"at the second publish":   func(w *world, _ *signertest.Fake) { w.engine.budget.Store(5) },
		"at the activation":       func(w *world, _ *signertest.Fake) { w.engine.budget.Store(6) },
	} {
		t.Run(name, func(t *testing.T) {
			w, fake := remote(t, signertest.FakeOptions{ConsistencyWindow: 50 * time.Millisecond})
			dead := must(service.New(t.Context(), w.config()))
			crash(w, fake)
			if err := dead.EnsureKeyset(t.Context(), zoneKeyset()); err == nil {
				t.Fatal("nothing went wrong")
			}
			w.engine.reconnect()
			w.dbClock.set(3 * time.Minute)
			w.backends["local"] = fake.Connect()
			cfg := brisk(w)
			cfg.Now = w.dbClock.now // time has passed everywhere
			s := w.start(t, cfg, zoneKeyset())
			eventually(t, "the keyset is finished", s.finished)
			checkKeyset(t, w, fake)
			eventually(t, "it issues", func() bool { _, err := s.issue(t, s.admin); return err == nil })
		})
	}
}

// A replica whose own attempt failed goes on by itself, without waiting for its
// own hold to run out.
func TestTheSameReplicaFinishes(t *testing.T) {
	w, fake := remote(t, signertest.FakeOptions{})
	s := w.start(t, brisk(w))
	fake.Inject(signertest.Fault{Op: signertest.OpCreate, Times: 1, Apply: true, Err: signertest.Fail(signer.Unavailable)})
	if _, err := s.as(s.admin).keys.CreateKeyset(t.Context(), &pb.CreateKeysetRequest{Keyset: zoneKeyset()}); err == nil {
		t.Fatal("nothing went wrong")
	}
	eventually(t, "the keyset is finished", s.finished)
	checkKeyset(t, w, fake)
}

// Heartbeats of this and of another replica come while keys are being made that
// take longer than a heartbeat. Each key is made once, and the caller is told of
// success.
func TestSlowCreation(t *testing.T) {
	w, fake := remote(t, signertest.FakeOptions{Latency: 150 * time.Millisecond})
	cfg := brisk(w)
	cfg.LeaseTTL = 3 * time.Second // a heartbeat every half a second
	s := w.start(t, cfg)
	other := cfg
	other.Backends = map[string]signer.Backend{"local": fake.Connect()}
	w.start(t, other)
	resp, err := s.as(s.admin).keys.CreateKeyset(t.Context(), &pb.CreateKeysetRequest{Keyset: zoneKeyset()})
	if err != nil {
		t.Fatal(err)
	}
	if keys := resp.GetSigningKeys(); len(keys) != 2 || keys[0].GetState() != "active" || keys[1].GetState() != "published" {
		t.Errorf("%v", keys)
	}
	checkKeyset(t, w, fake)
	if s.private("/healthz/ready").Code != 200 {
		t.Error("the lease ran out meanwhile")
	}
}

// A window longer than the lease must not keep a replica from finishing.
func TestALongConsistencyWindow(t *testing.T) {
	w, fake := remote(t, signertest.FakeOptions{ConsistencyWindow: time.Second})
	s := w.start(t, brisk(w))
	fake.Inject(signertest.Fault{Op: signertest.OpCreate, Times: 1, Apply: true, Err: signertest.Fail(signer.Unavailable)})
	if _, err := s.as(s.admin).keys.CreateKeyset(t.Context(), &pb.CreateKeysetRequest{Keyset: zoneKeyset()}); err == nil {
		t.Fatal("nothing went wrong")
	}
	eventually(t, "the keyset is finished", s.finished)
	checkKeyset(t, w, fake)
}

func TestTheCallerLeavesDuringCreation(t *testing.T) {
	w, fake := remote(t, signertest.FakeOptions{Latency: 50 * time.Millisecond})
	s := w.start(t, w.config()) // no heartbeat comes to finish it
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		for fake.Calls(signertest.OpCreate) == 0 && ctx.Err() == nil {
			time.Sleep(time.Millisecond)
		}
		cancel()
	}()
	if _, err := s.as(s.admin).keys.CreateKeyset(ctx, &pb.CreateKeysetRequest{Keyset: zoneKeyset()}); err == nil {
		t.Fatal("it was too fast")
	}
	eventually(t, "the keyset is finished", s.finished)
	checkKeyset(t, w, fake)
}

func TestReadyWhileAKeysetIsMade(t *testing.T) {
	w, fake := remote(t, signertest.FakeOptions{})
	s := w.start(t, brisk(w), zoneKeyset())
	fake.Inject(signertest.Fault{Op: signertest.OpCreate, Err: signertest.Fail(signer.Denied)})
	if err := s.EnsureKeyset(t.Context(), &pb.Keyset{Name: "user", Profile: pb.Profile_PROFILE_USER, Algorithm: "ES256"}); err == nil {
		t.Fatal("nothing went wrong")
	}
	eventually(t, "it is tried again", func() bool { return fake.Calls(signertest.OpCreate) > 4 })
	eventually(t, "one keyset that cannot be made takes no replica out of service", func() bool { return s.private("/healthz/ready").Code == 200 })
}

func TestABackendThatComesBack(t *testing.T) {
	w, fake := remote(t, signertest.FakeOptions{})
	w.start(t, w.config(), zoneKeyset())
	fake.Inject(signertest.Fault{Op: signertest.OpOpen, Err: signertest.Fail(signer.Unavailable)})
	s := w.start(t, brisk(w)) // it finds the backend down

	eventually(t, "readiness says so", func() bool { // and not that the lease has run out
		ready := s.private("/healthz/ready")
		return ready.Code == 503 && strings.Contains(ready.Body.String(), "backend")
	})
	resp, err := s.issue(t, s.admin)
	if resp != nil || err == nil {
		t.Errorf("issued with the backend down: %v", err)
	}
	if resp, _ := s.get(t, "/keysets/zone/jwks.json"); resp.StatusCode != 200 {
		t.Errorf("JWK set: %d", resp.StatusCode)
	}
	fake.Heal()
	eventually(t, "it issues", func() bool { _, err := s.issue(t, s.admin); return err == nil })
}
