package integration

import (
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
)

// TestConsumerHoldsBack rotates a keyset whose consumers have to acknowledge a key
// before it may sign. One of them does not: the rotation waits, says for whom, and
// tokens are issued and verified all along. When it does, the key signs.
func TestConsumerHoldsBack(t *testing.T) {
	f := newFleet(t)
	edge := newKeyset("edge")
	edge.Keyset.Consumers = []string{"cp-east", "cp-west"}
	keys := f.members[0].client.keys
	made, err := keys.CreateKeyset(t.Context(), edge)
	if err != nil {
		t.Fatal(err)
	}
	kids := []string{made.GetSigningKeys()[0].GetKid(), made.GetSigningKeys()[1].GetKid()}
	// The others may hear of the keyset before its first key signs.
	eventually(t, 20*time.Second, "everybody issues tokens of the keyset", func() bool {
		return !slices.ContainsFunc(f.members, func(r *member) bool {
			_, err := r.client.tokens.IssueZoneToken(t.Context(), &pb.IssueZoneTokenRequest{
				Keyset: "edge", Zone: "first", ValidFor: durationpb.New(time.Minute),
			})
			return err != nil
		})
	})
	tr := f.startTraffic(t, keyset{name: "edge"})
	eventually(t, 20*time.Second, "the rotation is taken on", func() bool {
		asked, err := f.askForRotation(t.Context(), "edge", false)
		if err != nil {
			t.Fatal(err)
		}
		return asked
	})
	// Until nothing but the consumers is in the way, and for a while after that.
	time.Sleep(fleetLease + fleetMaxAge + fleetSkew + time.Second)
	f.wantHeld(t, tr, "cp-east", "cp-west")

	f.acknowledge(t, "cp-east", kids...)
	f.acknowledge(t, "cp-west", kids[0])
	time.Sleep(fleetLease)
	f.wantHeld(t, tr, "cp-west")

	f.acknowledge(t, "cp-west", kids...)
	took := eventually(t, 20*time.Second, "the key signs", func() bool { return f.mustActive(t, "edge").GetKid() == kids[1] })
	t.Logf("the key signs %s after the last acknowledgement", took.Round(time.Millisecond))
	before := tr.received("edge")
	eventually(t, 20*time.Second, "tokens are issued on", func() bool { return tr.received("edge") > before+20 })
	tr.stop(t)
	f.wantActivations(t, 3)
	f.stop(t)
}

// wantHeld wants the first key to sign, tokens to be issued, and everybody who
// asks to be told that the second key waits for exactly these consumers.
func (f *fleet) wantHeld(t *testing.T, tr *traffic, missing ...string) {
	t.Helper()
	before := tr.received("edge")
	eventually(t, 20*time.Second, "tokens are issued on", func() bool { return tr.received("edge") > before+20 })
	if serial := f.mustActive(t, "edge").GetSerial(); serial != 1 {
		t.Fatalf("serial %d signs, though %v have not acknowledged it", serial, missing)
	}
	keys := f.members[1].client.keys
	resp, err := keys.GetSigningKey(t.Context(), &pb.GetSigningKeyRequest{Keyset: "edge", Serial: 2})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range resp.GetAcknowledgements() {
		if want := !slices.Contains(missing, a.GetConsumer()); a.GetHasKey() != want {
			t.Errorf("%s has the key: %v, want %v", a.GetConsumer(), a.GetHasKey(), want)
		}
	}
	var waits []string
	for _, s := range resp.GetSteps() {
		if s.GetAction() == "activate" {
			waits = s.GetWaitingFor()
		}
	}
	_, refusal := keys.RotateKeyset(t.Context(), &pb.RotateKeysetRequest{Keyset: "edge", Now: true})
	if connect.CodeOf(refusal) != connect.CodeFailedPrecondition {
		t.Fatalf("a rotation that is to happen now: got %v, want %v", refusal, connect.CodeFailedPrecondition)
	}
	shown := zonemint(t, "key", "show", "edge", "2", "--addr", "http://"+f.members[1].public, "--token-file", f.in.adminToken).must(t)
	for where, text := range map[string]string{
		"the plan": strings.Join(waits, "\n"), "the refusal": refusal.Error(), "zonemint key show": shown,
	} {
		for _, name := range []string{"cp-east", "cp-west"} {
			says := strings.Contains(text, name+" has not acknowledged")
			if want := slices.Contains(missing, name); says != want {
				t.Errorf("%s says that %s is missing: %v, want %v\n%s", where, name, says, want, text)
			}
		}
	}
}

// acknowledge says what a consumer has.
func (f *fleet) acknowledge(t *testing.T, consumer string, kids ...string) {
	t.Helper()
	_, err := f.members[0].client.keys.AcknowledgeKeys(t.Context(), &pb.AcknowledgeKeysRequest{
		Keyset: "edge", Consumer: consumer, Kids: kids,
	})
	if err != nil {
		t.Fatal(err)
	}
}
