package service_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/store"
)

// rotating is a replica whose keys may take over soon.
func rotating(t *testing.T, change ...func(*pb.Keyset)) *server {
	t.Helper()
	w := newWorld(t)
	ks := zoneKeyset()
	for _, c := range change {
		c(ks)
	}
	s := w.start(t, swift(w), ks)
	s.states(t, "active", "published")
	return s
}

// unknown takes back the first successor, which verifiers have known from the
// start. Serial 3 is made in its place.
func (s *server) unknown(t testing.TB) {
	t.Helper()
	must(s.retire(t, 2, false))
	s.become(t, 3, store.StatePublished)
	s.states(t, "active", "abandoned", "published")
}

func (s *server) rotate(t testing.TB, req *pb.RotateKeysetRequest) (*pb.RotateKeysetResponse, error) {
	t.Helper()
	req.Keyset = "zone"
	return s.as(s.admin).keys.RotateKeyset(t.Context(), req)
}

// update changes the policy of the keyset zone.
func (s *server) update(t testing.TB, ks *pb.Keyset, fields ...string) (*pb.UpdateKeysetResponse, error) {
	t.Helper()
	ks.Name, ks.Profile = "zone", pb.Profile_PROFILE_ZONE
	return s.as(s.admin).keys.UpdateKeyset(t.Context(), &pb.UpdateKeysetRequest{Keyset: ks, UpdateMask: &fieldmaskpb.FieldMask{Paths: fields}})
}

// wantHeld wants a call to be refused with a text that says why and how to go on.
func wantHeld(t testing.TB, err error, texts ...string) {
	t.Helper()
	wantCode(t, err, connect.CodeFailedPrecondition)
	for _, text := range texts {
		if err != nil && !strings.Contains(err.Error(), text) {
			t.Errorf("%v does not say %q", err, text)
		}
	}
}

func TestRotatePlan(t *testing.T) {
	w := newWorld(t)
	s := w.start(t, w.config(), zoneKeyset())
	s.unknown(t)
	s.mint(t, time.Hour)
	before := s.audited(t)
	for name, c := range map[string]struct {
		req  *pb.RotateKeysetRequest
		want []string
	}{
		"plain":    {&pb.RotateKeysetRequest{}, []string{"retire 1", "activate 3", "make 4", "remove 1"}},
		"by force": {&pb.RotateKeysetRequest{Now: true, Force: true}, []string{"retire 1", "activate 3", "make 4", "remove 1"}},
	} {
		c.req.DryRun = true
		resp, err := s.rotate(t, c.req)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := planOf(resp.GetSteps()); !slices.Equal(got, c.want) || resp.GetSteps()[0].GetLiveTokens() != 1 || resp.GetSteps()[0].GetKid() == "" {
			t.Errorf("%s: the plan is %q, %v", name, got, resp.GetSteps())
		}
		for _, step := range resp.GetSteps() {
			if step.GetBrokenTokens() != 0 {
				t.Errorf("%s: %v", name, step)
			}
		}
	}
	_, err := s.rotate(t, &pb.RotateKeysetRequest{DryRun: true, Now: true})
	wantHeld(t, err, "verifiers may hold JWK sets without it until", "force")
	// The waits of the default configuration: lease, cache, skew.
	resp := must(s.rotate(t, &pb.RotateKeysetRequest{DryRun: true}))
	until := resp.GetSteps()[1].GetAt().AsTime().Sub(s.keyAt(t, 3).GetSigningKey().GetPublishedAt().AsTime())
	if until != 2*time.Minute {
		t.Errorf("verifiers are waited for %s", until)
	}
	s.states(t, "active", "abandoned", "published")
	if after := s.audited(t); !slices.Equal(after, before) {
		t.Errorf("plans left %v in the audit", after[len(before):])
	}
}

func TestRotate(t *testing.T) {
	s := rotating(t)
	s.unknown(t)
	old := s.mint(t, time.Hour)
	resp := must(s.rotate(t, &pb.RotateKeysetRequest{Reason: "spring"}))
	if three := resp.GetSigningKeys()[1]; three.GetState() != "published" || three.GetActivateAfter() == nil {
		t.Errorf("serial 3 is %v", three)
	}
	again, err := s.rotate(t, &pb.RotateKeysetRequest{FromSerial: 1}) // asked for already
	if err != nil {
		wantHeld(t, err, "serial 1 of keyset \"zone\" does not sign") // done already
	} else if !again.GetSigningKeys()[1].GetActivateAfter().AsTime().Equal(resp.GetSigningKeys()[1].GetActivateAfter().AsTime()) {
		t.Error("asking twice moved the rotation")
	}
	s.become(t, 3, store.StateActive)
	three := s.keyAt(t, 3).GetSigningKey()
	if waited := three.GetActivatedAt().AsTime().Sub(three.GetPublishedAt().AsTime()); waited < swiftWait {
		t.Errorf("serial 3 signs %s after it was published, before %s", waited, swiftWait)
	}
	s.settles(t)
	s.states(t, "retiring", "abandoned", "active", "published")
	if fresh := s.mint(t, time.Hour); fresh.GetKid() != three.GetKid() {
		t.Errorf("issued with %s", fresh.GetKid())
	}
	s.verifies(t, old.GetToken(), "")
	var did []string
	for _, a := range s.audited(t) {
		if a == "keyset.rotate" || a == "signing-key.schedule" || a == "signing-key.retiring" {
			did = append(did, a)
		}
	}
	if want := []string{"keyset.rotate", "signing-key.schedule", "signing-key.retiring"}; !slices.Equal(did, want) {
		t.Errorf("the audit says %v, want %v", did, want)
	}
}

func TestRotateNow(t *testing.T) {
	w := newWorld(t)
	s := w.start(t, w.config(), zoneKeyset()) // it would wait for two minutes
	s.unknown(t)
	old := s.mint(t, time.Hour)
	_, err := s.rotate(t, &pb.RotateKeysetRequest{Now: true})
	wantHeld(t, err, "verifiers may hold JWK sets without it until")
	s.states(t, "active", "abandoned", "published")
	resp, err := s.rotate(t, &pb.RotateKeysetRequest{Now: true, Force: true})
	if err != nil {
		t.Fatal(err)
	}
	if got := planOf(resp.GetSteps())[:3]; !slices.Equal(got, []string{"retire 1", "activate 3", "make 4"}) {
		t.Errorf("it did %q", got)
	}
	s.sound(t)
	if fresh := s.mint(t, time.Hour); fresh.GetKid() != resp.GetSigningKeys()[1].GetKid() {
		t.Errorf("issued with %s", fresh.GetKid())
	}
	s.verifies(t, old.GetToken(), "")
	s.settles(t)
}

// The successor that a keyset begins with is in every set that verifiers may have
// kept.
func TestTheFirstSuccessorIsKnown(t *testing.T) {
	w := newWorld(t)
	s := w.start(t, w.config(), zoneKeyset())
	old := s.mint(t, time.Hour)
	plan := must(s.rotate(t, &pb.RotateKeysetRequest{DryRun: true}))
	if evidence := plan.GetSteps()[1].GetEvidence(); !strings.Contains(strings.Join(evidence, "\n"), "in every JWK set") {
		t.Errorf("the evidence is %q", evidence)
	}
	resp := must(s.rotate(t, &pb.RotateKeysetRequest{Now: true}))
	if fresh := s.mint(t, time.Hour); fresh.GetKid() != resp.GetSigningKeys()[1].GetKid() {
		t.Errorf("issued with %s", fresh.GetKid())
	}
	s.verifies(t, old.GetToken(), "")
	s.become(t, 3, store.StatePublished)
	_, err := s.rotate(t, &pb.RotateKeysetRequest{Now: true}) // serial 3 is another matter
	wantHeld(t, err, "verifiers may hold JWK sets without it until")

	// Back again: serial 1 has been known from the start, too.
	must(s.as(s.admin).keys.ActivateSigningKey(t.Context(), &pb.ActivateSigningKeyRequest{Keyset: "zone", Serial: 1}))
	s.states(t, "active", "retiring", "published")
}

// When the waits are over, no force is needed.
func TestRotateNowInTime(t *testing.T) {
	s := rotating(t)
	s.unknown(t)
	s.mint(t, time.Hour)
	eventually(t, "the waits are over", func() bool {
		_, err := s.rotate(t, &pb.RotateKeysetRequest{Now: true})
		return err == nil
	})
	three := s.keyAt(t, 3).GetSigningKey()
	if waited := three.GetActivatedAt().AsTime().Sub(three.GetPublishedAt().AsTime()); three.GetState() != "active" || waited < swiftWait {
		t.Errorf("serial 3 is %s %s after it was published", three.GetState(), waited)
	}
	s.settles(t)
}

// While keys rotate every second, every token that is issued verifies at once and
// as long as it is valid.
func TestScheduledRotation(t *testing.T) {
	s := rotating(t, func(ks *pb.Keyset) { ks.RotateEvery = durationpb.New(time.Second) })
	var tokens []*pb.IssueZoneTokenResponse
	kids := map[string]bool{}
	for start := time.Now(); len(kids) < 4; {
		token := s.mint(t, time.Hour)
		tokens, kids[token.GetKid()] = append(tokens, token), true
		s.sound(t)
		if time.Since(start) > 2*patience {
			t.Fatalf("in %s %d keys have signed", time.Since(start), len(kids))
		}
	}
	for _, token := range tokens {
		s.verifies(t, token.GetToken(), "")
	}
	must(s.update(t, &pb.Keyset{}, "rotate_every"))
	s.settles(t)
}

// A key is removed when its last token has expired, and no token is refused
// before it has.
func TestRemoval(t *testing.T) {
	s := rotating(t)
	last := s.mint(t, 3*time.Second)
	must(s.rotate(t, &pb.RotateKeysetRequest{Now: true, Force: true}))
	s.verifiesUntil(t, last.GetToken(), last.GetExpiresAt().AsTime())
	s.become(t, 1, store.StateRemoved)
	one := s.keyAt(t, 1).GetSigningKey()
	if early := one.GetLastExpiry().AsTime().Sub(one.GetRemovedAt().AsTime()); early > 0 {
		t.Errorf("serial 1 was removed %s before its last token expired", early)
	}
	s.settles(t)
	eventually(t, "it is not served any more", func() bool { return !slices.Contains(s.served(t, "zone"), last.GetKid()) })
}

func TestConsumers(t *testing.T) {
	s := rotating(t, func(ks *pb.Keyset) {
		ks.Algorithm, ks.Distribution, ks.Consumers = "RS256", pb.Distribution_DISTRIBUTION_KUMA_SYNC, []string{"east", "west"}
	})
	two := s.keyAt(t, 2).GetSigningKey().GetKid()
	must(s.rotate(t, &pb.RotateKeysetRequest{}))
	time.Sleep(swiftWait)
	s.states(t, "active", "published")
	_, err := s.rotate(t, &pb.RotateKeysetRequest{Now: true})
	wantHeld(t, err, "consumer east has not acknowledged "+two, "consumer west has not")

	ack := func(consumer string, kids ...string) (*pb.AcknowledgeKeysResponse, error) {
		return s.as(s.admin).keys.AcknowledgeKeys(t.Context(), &pb.AcknowledgeKeysRequest{Keyset: "zone", Consumer: consumer, Kids: kids})
	}
	resp := must(ack("east", two, "zone-9-x"))
	if !slices.Equal(resp.GetMissing(), []string{s.keyAt(t, 1).GetSigningKey().GetKid()}) || !slices.Equal(resp.GetSurplus(), []string{"zone-9-x"}) {
		t.Errorf("east is told %v", resp)
	}
	var got *pb.GetSigningKeyResponse
	eventually(t, "only consumer west is waited for", func() bool { // and not the replica
		got = s.keyAt(t, 2)
		return len(got.GetSteps()) == 1 && slices.Equal(got.GetSteps()[0].GetWaitingFor(), []string{"consumer west has not acknowledged " + two})
	})
	wantAcks(t, got.GetAcknowledgements(), map[string]bool{"replica": true, "east": true, "west": false})
	_, err = ack("north", two)
	wantCode(t, err, connect.CodeInvalidArgument)
	s.states(t, "active", "published")

	eventually(t, "that west is waited for is logged", func() bool {
		return strings.Contains(s.log.String(), "consumer west has not acknowledged "+two)
	})
	must(ack("west", s.served(t, "zone")...))
	s.become(t, 2, store.StateActive)
	s.settles(t)
	for _, name := range []string{"east", "west"} {
		if n := strings.Count(s.log.String(), `"waits_for":"consumer `+name+" has not acknowledged "+two); n != 1 {
			t.Errorf("that %s is waited for is logged %d times", name, n)
		}
	}
}

func wantAcks(t testing.TB, acks []*pb.Acknowledgement, want map[string]bool) {
	t.Helper()
	got := map[string]bool{}
	for _, a := range acks {
		name := a.GetConsumer()
		if a.GetReplica() {
			name = "replica"
		}
		got[name] = a.GetHasKey()
		if a.GetHasKey() && a.GetAt() == nil {
			t.Errorf("nobody knows when %s said so", name)
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("acknowledged is %v, want %v", got, want)
	}
}

func TestManual(t *testing.T) {
	s := rotating(t, func(ks *pb.Keyset) { ks.Distribution = pb.Distribution_DISTRIBUTION_MANUAL })
	s.mint(t, time.Hour)
	must(s.rotate(t, &pb.RotateKeysetRequest{}))
	time.Sleep(2 * swiftWait)
	s.states(t, "active", "published")
	if steps := s.keyAt(t, 2).GetSteps(); len(steps) != 1 || !strings.Contains(fmt.Sprint(steps[0].GetWaitingFor()), "zonemint key activate zone 2") {
		t.Errorf("the steps are %v", steps)
	}
	resp, err := s.as(s.admin).keys.ActivateSigningKey(t.Context(), &pb.ActivateSigningKeyRequest{Keyset: "zone", Serial: 2})
	if err != nil || resp.GetSigningKey().GetState() != "active" {
		t.Fatalf("%v, %v", resp, err)
	}
	s.settles(t)
	s.states(t, "retiring", "active", "published")
}

// Going back to the key before is possible at once, once every verifier has had
// time to know it.
func TestRollback(t *testing.T) {
	s := rotating(t)
	old := s.mint(t, time.Hour)
	must(s.rotate(t, &pb.RotateKeysetRequest{Now: true, Force: true}))
	s.settles(t)
	short := s.mint(t, time.Hour)
	time.Sleep(swiftWait)
	activate := func(serial int32) (*pb.ActivateSigningKeyResponse, error) {
		return s.as(s.admin).keys.ActivateSigningKey(t.Context(), &pb.ActivateSigningKeyRequest{Keyset: "zone", Serial: serial, Reason: "2 is broken"})
	}
	plan := must(s.as(s.admin).keys.ActivateSigningKey(t.Context(), &pb.ActivateSigningKeyRequest{Keyset: "zone", Serial: 1, DryRun: true}))
	if got := planOf(plan.GetSteps()); !slices.Equal(got, []string{"retire 2", "activate 1"}) || plan.GetSigningKey().GetState() != "retiring" {
		t.Errorf("the plan is %q, %v", got, plan.GetSigningKey())
	}
	for range 2 { // the second time it does sign
		resp, err := activate(1)
		if err != nil || resp.GetSigningKey().GetState() != "active" {
			t.Fatalf("%v, %v", resp, err)
		}
		s.states(t, "active", "retiring", "published")
	}
	if fresh := s.mint(t, time.Hour); fresh.GetKid() != old.GetKid() {
		t.Errorf("issued with %s", fresh.GetKid())
	}
	s.verifies(t, short.GetToken(), "")
	s.settles(t)
	_, err := activate(9)
	wantCode(t, err, connect.CodeNotFound)
}

// Many replicas and callers ask at once. Each key takes over once.
func TestRotationRace(t *testing.T) {
	w := newWorld(t)
	s := w.start(t, swift(w), zoneKeyset())
	others := []*server{s, w.start(t, swift(w)), w.start(t, swift(w))}
	s.mint(t, time.Hour)
	var wg sync.WaitGroup
	for _, o := range others {
		for range 3 {
			wg.Go(func() {
				// Who comes when it is done already is told so.
				_, err := o.rotate(t, &pb.RotateKeysetRequest{FromSerial: 1})
				if err != nil && connect.CodeOf(err) != connect.CodeAborted && !strings.Contains(err.Error(), "serial 1 of keyset \"zone\" does not sign") {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	s.become(t, 2, store.StateActive)
	s.settles(t)
	s.states(t, "retiring", "active", "published")
	for _, o := range others {
		eventually(t, "every replica issues with the new key", func() bool {
			resp, err := o.issue(t, o.admin)
			return err == nil && strings.HasPrefix(resp.GetKid(), "zone-2-")
		})
	}
}
