package bridge

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	double "github.com/zonemint/zonemint/integration/controlplane"
	"github.com/zonemint/zonemint/kuma"
	"github.com/zonemint/zonemint/kuma/controlplane"
	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	v1 "github.com/zonemint/zonemint/proto/zonemint/v1/zonemintv1connect"
)

// troubled is a store with trouble of its own. What is nil is the store's.
type troubled struct {
	Store
	get func(ref kuma.Ref) error // nil error: the store's answer
	put func(ref kuma.Ref) error
	del func() error // instead of deleting
}

func (s troubled) Get(ctx context.Context, ref kuma.Ref) (controlplane.Secret, error) {
	if s.get != nil {
		if err := s.get(ref); err != nil {
			return controlplane.Secret{}, err
		}
	}
	return s.Store.Get(ctx, ref)
}

func (s troubled) Put(ctx context.Context, secret controlplane.Secret) error {
	if s.put != nil {
		if err := s.put(secret.Ref); err != nil {
			return err
		}
	}
	return s.Store.Put(ctx, secret)
}

func (s troubled) Delete(ctx context.Context, secret controlplane.Secret) error {
	if s.del != nil {
		return s.del()
	}
	return s.Store.Delete(ctx, secret)
}

func TestWhatGoesOnFailingKeepsNothingFromBeingRepaired(t *testing.T) {
	b := newBench(t, nil)
	b.failing, b.failWhat = errDown, "AcknowledgeKeys"
	b.run(t)
	b.revoke("zone", "z1")
	b.hasList(t, zoneList, "z1")
	b.eventually(t, "it is reported", func() bool {
		return b.bridge.Ready() != nil && strings.Contains(b.bridge.Ready().Error(), "acknowledge")
	})
	b.cp.Drop(double.Ref{Name: zoneList})
	b.hasList(t, zoneList, "z1")
}

func TestOneSecretThatFailsHoldsUpNoOther(t *testing.T) {
	for _, fault := range []error{controlplane.ErrUnavailable, controlplane.ErrDenied} {
		b := newBench(t, func(c *Config) {
			c.ControlPlanes[0].Store = troubled{Store: c.ControlPlanes[0].Store, get: func(ref kuma.Ref) error {
				if ref.Name == "user-token-revocations" {
					return fault
				}
				return nil
			}}
		})
		b.revoke("zone", "z1")
		b.revoke("user", "u1")
		if r := b.once(t); !r.Failed() {
			t.Errorf("it is not reported: %+v", r)
		}
		if got := b.data("", zoneList); got != "z1" || len(b.acknowledged()) != 2 {
			t.Errorf("%v: the list is %q, and %v are acknowledged", fault, got, b.acknowledged())
		}
	}
}

func TestOnKubernetesAMeshsSecretDoesNotTakeTheNameOfTheGlobalOne(t *testing.T) {
	cluster := double.NewCluster("an-operator")
	b := newBench(t, func(c *Config) {
		onKubernetes(t, cluster)(c)
		c.ControlPlanes[0].Store = troubled{Store: c.ControlPlanes[0].Store, put: func(ref kuma.Ref) error {
			if ref == (kuma.Ref{Name: dpList}) {
				return errors.New("a webhook is in a bad mood")
			}
			return nil
		}}
	})
	b.revoke("dataplane/default", "d1")
	if r := b.once(t); !r.Failed() {
		t.Errorf("it is not reported: %+v", r)
	}
	if s, ok := cluster.Secret(namespace, dpList); ok {
		t.Errorf("a %s has the name for ever", s.Type)
	}
}

func TestAKeyThatIsStillThereWasNotDeleted(t *testing.T) {
	b := newBench(t, func(c *Config) {
		c.ControlPlanes[0].Store = troubled{Store: c.ControlPlanes[0].Store, del: func() error { return nil }}
	})
	first := b.keys["zone"][0]
	first.State = "distrusted"
	b.cp.Set(double.Ref{Name: keyName + first.GetKid()}, first.GetPublicKey(), nil)
	if i := b.once(t).item(t, "GlobalSecret "+keyName+first.GetKid()); i.Outcome != Failed {
		t.Errorf("got %+v", i)
	}
}

func TestAKeysetThatIsConfiguredAndNotListedIsReported(t *testing.T) {
	b := newBench(t, func(c *Config) { c.ControlPlanes[0].Keysets = []string{"user", "no-such"} })
	b.run(t)
	b.revoke("user", "u1")
	b.hasList(t, "user-token-revocations", "u1")
	b.eventually(t, "it is reported", func() bool { return b.bridge.Ready() != nil && strings.Contains(b.bridge.Ready().Error(), "no-such") })
	if !strings.Contains(b.log.String(), "no-such") {
		t.Error("it is not logged")
	}
}

func TestNoKeyIsPutBackOnceZonemintDoesNotListItsKeyset(t *testing.T) {
	b := newBench(t, nil)
	b.run(t)
	b.eventually(t, "an acknowledgement", func() bool { return len(b.acknowledged()) == 2 })
	b.do(func() { b.keysets = b.keysets[1:] })
	b.eventually(t, "it is reported", func() bool {
		return b.bridge.Ready() != nil && strings.Contains(b.bridge.Ready().Error(), "keyset zone")
	})
	b.cp.Drop(double.Ref{Name: keyName + "zone-1-a"}) // somebody stops trusting it
	time.Sleep(5 * b.bridge.planes[0].Resync)
	if b.data("", keyName+"zone-1-a") != "" {
		t.Error("the key is trusted again, though nobody knows whether it should be")
	}
	if b.data("", keyName+"zone-2-b") == "" {
		t.Error("the other one is gone")
	}
}

func TestAnAcknowledgementThatIsRefusedIsNotReportedAsMade(t *testing.T) {
	b := newBench(t, nil)
	b.failing, b.failWhat = connect.NewError(connect.CodeInvalidArgument, errors.New("the keyset waits for others")), "AcknowledgeKeys"
	if i := b.once(t).item(t, "zone"); i.Outcome != Failed {
		t.Errorf("got %+v", i)
	}
}

func TestWhatAProcessBeforeHasAcknowledgedIsTakenBackIfItIsNotThere(t *testing.T) {
	for _, restored := range []bool{true, false} {
		b := newBench(t, nil)
		for i, k := range b.keys["zone"] {
			if i == 0 || !restored {
				b.cp.Set(double.Ref{Name: keyName + k.GetKid()}, k.GetPublicKey(), nil)
			}
		}
		b.once(t)
		if got := len(b.acks[0].GetKids()) == 0; got != restored {
			t.Errorf("restored: %t, first it was said that there is %v", restored, b.acks[0].GetKids())
		}
		if got := b.acknowledged(); !slices.Equal(got, []string{"zone-1-a", "zone-2-b"}) {
			t.Errorf("in the end %v are acknowledged", got)
		}
	}
}

func TestANewConsumerNeedNotWaitForTheNextComparison(t *testing.T) {
	b := newBench(t, func(c *Config) { c.ControlPlanes[0].Resync = time.Hour })
	b.keysets[0].Consumers = nil
	b.run(t)
	b.eventually(t, "keys", func() bool { return b.data("", keyName+"zone-2-b") != "" })
	b.do(func() {
		b.keysets[0] = &pb.Keyset{Name: "zone", Profile: pb.Profile_PROFILE_ZONE, Consumers: []string{"cp"}}
	})
	b.eventually(t, "an acknowledgement", func() bool { return len(b.acknowledged()) == 2 })
}

func TestAnOddEntryKeepsNoRevocationOut(t *testing.T) {
	for _, odd := range []string{"a\x00b", "a\x7f", "\xff\xfe", "a\u200bb", strings.Repeat("a", 1000)} {
		t.Run(fmt.Sprintf("%.10q", odd), func(t *testing.T) {
			b := newBench(t, nil)
			b.cp.Set(double.Ref{Name: zoneList}, odd, nil)
			b.revoke("zone", "z1")
			if r := b.once(t); r.Failed() || !strings.HasSuffix(b.data("", zoneList), ",z1") {
				t.Errorf("the list is %q: %+v", b.data("", zoneList), r)
			}
		})
	}
}

func TestAClockThatIsFarAheadLosesNoRevocation(t *testing.T) {
	b := newBench(t, func(c *Config) { c.Now = func() time.Time { return time.Now().AddDate(2, 0, 0) } })
	b.revoke("zone", "z1")
	b.once(t)
	if got := b.data("", zoneList); got != "z1" {
		t.Errorf("the list is %q", got)
	}
}

// What "kuma export" makes has no label, and lists on Kubernetes have only those with
// one.
func TestOnKubernetesAKeyThatWasPutByHandEndsToo(t *testing.T) {
	cluster := double.NewCluster("an-operator")
	b := newBench(t, onKubernetes(t, cluster))
	first := b.keys["zone"][0]
	first.State = "distrusted"
	for kid, text := range map[string]string{first.GetKid(): first.GetPublicKey(), "zone-2-b": b.keys["zone"][1].GetPublicKey(), "theirs": newPEM(t)} {
		cluster.Set(double.CoreSecret{Type: "system.kuma.io/global-secret", Data: map[string][]byte{"value": []byte(text)},
			Metadata: double.Metadata{Namespace: namespace, Name: keyName + kid}})
	}
	if r := b.once(t); r.Failed() {
		t.Errorf("%+v", r)
	}
	for kid, want := range map[string]bool{first.GetKid(): false, "zone-2-b": true, "theirs": true} {
		if _, ok := cluster.Secret(namespace, keyName+kid); ok != want {
			t.Errorf("%s is there: %t", kid, ok)
		}
	}
}

func TestWhatCannotBeReadOfOneKeysetHoldsUpNoOther(t *testing.T) {
	b := newBench(t, nil)
	delete(b.keys, "zone")
	b.revoke("user", "u1")
	if i := b.once(t).item(t, "zone"); i.Outcome != Failed || b.data("", "user-token-revocations") != "u1" {
		t.Errorf("the list is %q: %+v", b.data("", "user-token-revocations"), i)
	}
	b = newBench(t, func(c *Config) { c.ControlPlanes[0].Keysets = []string{"zone"} })
	b.failing, b.failWhat = errDown, "WatchRevocations"
	if r := b.once(t); !r.Failed() || len(b.acknowledged()) != 2 {
		t.Errorf("%v are acknowledged: %+v", b.acknowledged(), r)
	}
}

// late answers a question only after the feed has brought something about it.
type late struct {
	v1.RevocationServiceClient
	meanwhile func()
}

func (l *late) CheckRevocations(_ context.Context, req *pb.CheckRevocationsRequest) (*pb.CheckRevocationsResponse, error) {
	resp := &pb.CheckRevocationsResponse{}
	for range req.GetJtis() {
		resp.States = append(resp.States, pb.RevocationState_REVOCATION_STATE_REVOKED)
	}
	l.meanwhile()
	return resp, nil
}

// What the feed has said since is newer than an answer that was on its way.
func TestTheFeedOvertakesAnAnswer(t *testing.T) {
	s := &source{now: time.Now, changed: func(string, change) {}, keysets: map[string]*keyset{
		"zone": {name: "zone", verdicts: map[string]opinion{}, asking: map[*question]bool{}},
	}}
	s.revocations = &late{meanwhile: func() { s.take("zone", page("epoch", 1, pageOf{lifted: []string{"a"}})) }}
	if err := s.check(t.Context(), []string{"zone"}, []string{"a", "b"}); err != nil {
		t.Fatal(err)
	}
	if a, b := s.verdict([]string{"zone"}, "a"), s.verdict([]string{"zone"}, "b"); a != notAsked || b != keep {
		t.Errorf("of a, which was lifted, the verdict is %v, of b %v", a, b)
	}
	if len(s.keysets["zone"].asking) != 0 {
		t.Error("the question is still under way")
	}
}
