package service_test

import (
	"slices"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/signer/signertest"
	"github.com/zonemint/zonemint/store"
)

func TestUpdateKeyset(t *testing.T) {
	w := newWorld(t)
	w.backends["hsm"] = signertest.NewFake(t, signertest.FakeOptions{})
	s := w.start(t, swift(w), zoneKeyset())
	before := must(s.as(s.admin).keys.ListKeysets(t.Context(), &pb.ListKeysetsRequest{})).GetKeysets()[0]
	wish := &pb.Keyset{
		Algorithm: "EdDSA", Backend: "hsm", Distribution: pb.Distribution_DISTRIBUTION_MANUAL, MaxValidFor: durationpb.New(2 * time.Hour),
		DefaultValidFor: durationpb.New(time.Hour), Backdate: durationpb.New(time.Minute), RotateEvery: durationpb.New(24 * time.Hour),
		PublishAhead: durationpb.New(time.Hour), Consumers: []string{"east"},
	}
	// Only what the mask names changes.
	resp := must(s.update(t, wish, "default_valid_for", "consumers"))
	if ks := resp.GetKeyset(); ks.GetDefaultValidFor().AsDuration() != time.Hour || !slices.Equal(ks.GetConsumers(), []string{"east"}) ||
		ks.GetMaxValidFor().AsDuration() != before.GetMaxValidFor().AsDuration() || ks.GetAlgorithm() != "ES256" || ks.GetBackend() != "local" {
		t.Errorf("it became %v", ks)
	}
	all := []string{"algorithm", "backend", "distribution", "max_valid_for", "default_valid_for", "backdate", "rotate_every", "publish_ahead", "consumers"}
	resp = must(s.update(t, wish, all...))
	listed := must(s.as(s.admin).keys.ListKeysets(t.Context(), &pb.ListKeysetsRequest{})).GetKeysets()[0]
	for _, ks := range []*pb.Keyset{resp.GetKeyset(), listed} {
		if ks.GetAlgorithm() != "EdDSA" || ks.GetBackend() != "hsm" || ks.GetDistribution() != wish.GetDistribution() || ks.GetMaxValidFor().AsDuration() != 2*time.Hour ||
			ks.GetBackdate().AsDuration() != time.Minute || ks.GetRotateEvery().AsDuration() != 24*time.Hour || ks.GetPublishAhead().AsDuration() != time.Hour {
			t.Errorf("it became %v", ks)
		}
	}
	// The policy counts at once, the successor follows.
	_, err := s.as(s.admin).tokens.IssueZoneToken(t.Context(), &pb.IssueZoneTokenRequest{Zone: "west", ValidFor: durationpb.New(3 * time.Hour)})
	wantCode(t, err, connect.CodeInvalidArgument)
	s.become(t, 3, store.StatePublished)
	s.settles(t)
	s.states(t, "active", "abandoned", "published")
	if k := s.keyAt(t, 3).GetSigningKey(); k.GetAlgorithm() != "EdDSA" || k.GetBackend() != "hsm" {
		t.Errorf("the successor is %v", k)
	}
}

// A default is measured against the maximum that the keyset has, and not against
// the one that the request does not set.
func TestUpdateKeysetOneField(t *testing.T) {
	s := rotating(t, func(ks *pb.Keyset) { ks.MaxValidFor = durationpb.New(2000 * time.Hour) })
	if _, err := s.update(t, &pb.Keyset{DefaultValidFor: durationpb.New(1000 * time.Hour)}, "default_valid_for"); err != nil {
		t.Error(err)
	}
	_, err := s.update(t, &pb.Keyset{DefaultValidFor: durationpb.New(3000 * time.Hour)}, "default_valid_for")
	wantCode(t, err, connect.CodeInvalidArgument)
	_, err = s.update(t, &pb.Keyset{MaxValidFor: durationpb.New(time.Hour)}, "max_valid_for")
	wantCode(t, err, connect.CodeInvalidArgument)
	s.sound(t)
}

func TestUpdateKeysetRefuses(t *testing.T) {
	s := newTestServer(t)
	for name, c := range map[string]struct {
		ks     *pb.Keyset
		fields []string
	}{
		"no field":            {&pb.Keyset{}, nil},
		"name":                {&pb.Keyset{}, []string{"name"}},
		"profile":             {&pb.Keyset{}, []string{"profile"}},
		"no such field":       {&pb.Keyset{}, []string{"backdate", "colour"}},
		"no such algorithm":   {&pb.Keyset{Algorithm: "HS256"}, []string{"algorithm"}},
		"no such backend":     {&pb.Keyset{Backend: "hsm"}, []string{"backend"}},
		"negative":            {&pb.Keyset{RotateEvery: durationpb.New(-time.Second)}, []string{"rotate_every"}},
		"consumer twice":      {&pb.Keyset{Consumers: []string{"a", "a"}}, []string{"consumers"}},
		"consumer in capital": {&pb.Keyset{Consumers: []string{"A"}}, []string{"consumers"}},
	} {
		if _, err := s.update(t, c.ks, c.fields...); connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := s.as(s.admin).keys.UpdateKeyset(t.Context(), &pb.UpdateKeysetRequest{
		Keyset: &pb.Keyset{Name: "nosuch", Profile: 1}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"backdate"}},
	})
	wantCode(t, err, connect.CodeNotFound)
	bounded := s.as(s.apiToken(t, store.APIToken{Name: "o", Roles: []string{"key-operator"}, Keysets: []string{"user"}}))
	_, err = bounded.keys.UpdateKeyset(t.Context(), &pb.UpdateKeysetRequest{
		Keyset: &pb.Keyset{Name: "zone", Profile: 1}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"backdate"}},
	})
	wantCode(t, err, connect.CodePermissionDenied)
	s.sound(t)
}
