package bridge

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	double "github.com/zonemint/zonemint/integration/controlplane"
	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
)

const (
	keyName   = "zone-token-signing-public-key-"
	zoneList  = "zone-token-revocations"
	dpList    = "dataplane-token-revocations-default"
	theirName = keyName + "theirs"
)

func TestOnceBringsAControlPlaneUpToDate(t *testing.T) {
	b := newBench(t, nil)
	b.revoke("zone", "z1", "z2")
	b.revoke("dataplane/default", "d1")
	b.revoke("user", "u1")
	b.cp.Set(double.Ref{Name: zoneList}, "theirs", nil)
	b.cp.Set(double.Ref{Name: theirName}, newPEM(t), nil)
	r := b.once(t)
	if r.Failed() {
		t.Errorf("%+v", r)
	}
	for name, want := range map[string]string{
		zoneList: "theirs,z1,z2", dpList: "d1", "user-token-revocations": "u1",
		keyName + "zone-1-a": b.keys["zone"][0].GetPublicKey(), keyName + "zone-2-b": b.keys["zone"][1].GetPublicKey(),
	} {
		if got := b.data("", name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	if got := b.data("default", dpList); got != "d1" {
		t.Errorf("the mesh's list: got %q", got)
	}
	if got := b.acknowledged(); !slices.Equal(got, []string{"zone-1-a", "zone-2-b"}) {
		t.Errorf("acknowledged: got %v", got)
	}
	if i := r.item(t, "GlobalSecret "+zoneList); i.Outcome != Written || i.Entries != 3 || i.Added != 2 || i.Others != 1 {
		t.Errorf("got %+v", i)
	}
	if i := r.item(t, "GlobalSecret "+theirName); i.Outcome != Foreign {
		t.Errorf("got %+v", i)
	}
	s, _ := b.cp.Secret(double.Ref{Name: keyName + "zone-1-a"})
	if s.Labels["app.kubernetes.io/managed-by"] != "zonemint" {
		t.Errorf("the key is not marked: %v", s.Labels)
	}
	if s, _ := b.cp.Secret(double.Ref{Name: zoneList}); s.Labels != nil {
		t.Errorf("somebody else's list is marked: %v", s.Labels)
	}
}

func TestNothingIsWrittenTwice(t *testing.T) {
	b := newBench(t, nil)
	b.revoke("zone", "z1")
	b.run(t)
	b.eventually(t, "an acknowledgement", func() bool { return len(b.acknowledged()) == 2 })
	b.hasList(t, zoneList, "z1")
	before := len(b.cp.Writes())
	time.Sleep(5 * b.bridge.planes[0].Resync)
	if after := len(b.cp.Writes()); after != before {
		t.Errorf("%d more writes, though nothing changed", after-before)
	}
	if n := b.said(); n != 2 { // that it has none, and then that it has them
		t.Errorf("%d acknowledgements, though nothing changed", n)
	}
}

func TestDryRunWritesNothing(t *testing.T) {
	b := newBench(t, func(c *Config) { c.DryRun = true })
	b.revoke("zone", "z1")
	b.cp.Set(double.Ref{Name: zoneList}, "theirs, ", nil)
	r := b.once(t)
	if w := b.cp.Writes(); len(w) > 0 {
		t.Errorf("it wrote %v", w)
	}
	if a := b.acknowledged(); a != nil {
		t.Errorf("it acknowledged %v", a)
	}
	if i := r.item(t, "GlobalSecret "+keyName+"zone-1-a"); i.Outcome != WouldWrite {
		t.Errorf("got %+v", i)
	}
	if i := r.item(t, "GlobalSecret "+zoneList); i.Outcome != WouldWrite || i.Added != 1 || i.Others != 1 || i.Drift == "" {
		t.Errorf("got %+v", i)
	}
}

func TestRevocationsComeAndGo(t *testing.T) {
	b := newBench(t, nil)
	b.cp.Set(double.Ref{Name: zoneList}, "theirs", nil)
	b.run(t)
	b.revoke("zone", "z1", "z2")
	b.hasList(t, zoneList, "theirs,z1,z2")
	b.lift("zone", "z1")
	b.hasList(t, zoneList, "theirs,z2")
	b.do(func() { b.states["z2"] = pb.RevocationState_REVOCATION_STATE_EXPIRED }) // by its own clock only, and it is in the feed
	b.revoke("zone", "z3")
	b.hasList(t, zoneList, "theirs,z2,z3")
}

func TestSomebodyElsesEntryThatZonemintLiftsLeaves(t *testing.T) {
	b := newBench(t, nil)
	b.states["x"] = pb.RevocationState_REVOCATION_STATE_ISSUED
	b.cp.Set(double.Ref{Name: zoneList}, "theirs,x", nil)
	b.run(t)
	b.revoke("zone", "z1") // and nobody asks about x again for a while
	b.hasList(t, zoneList, "theirs,x,z1")
	b.revoke("zone", "x")
	b.lift("zone", "x")
	b.hasList(t, zoneList, "theirs,z1")
}

func TestAListThatBecomesEmptyIsDeleted(t *testing.T) {
	b := newBench(t, nil)
	b.run(t)
	b.revoke("dataplane/default", "d1")
	b.hasList(t, dpList, "d1")
	b.lift("dataplane/default", "d1")
	b.eventually(t, "both lists are gone", func() bool {
		return !slices.ContainsFunc(b.cp.Names(), func(n string) bool { return strings.Contains(n, dpList) })
	})
}

func TestAfterARestartEntriesThatAreGoneLeaveAndOthersStay(t *testing.T) {
	b := newBench(t, nil)
	b.states["lifted"] = pb.RevocationState_REVOCATION_STATE_LIFTED
	b.states["expired"] = pb.RevocationState_REVOCATION_STATE_EXPIRED
	b.states["issued"] = pb.RevocationState_REVOCATION_STATE_ISSUED
	b.states["revoked"] = pb.RevocationState_REVOCATION_STATE_REVOKED
	b.cp.Set(double.Ref{Name: zoneList}, "lifted,expired,issued,revoked,unknown", nil)
	b.once(t)
	if got := b.data("", zoneList); got != "issued,revoked,unknown" {
		t.Errorf("got %q", got)
	}
}

func TestEntriesOfTokensThatHaveExpiredLeave(t *testing.T) {
	b := newBench(t, nil)
	over := time.Now().Add(-2 * expiryGrace).Unix()
	b.pages["zone"] = append(b.pages["zone"], page("e", 1, pageOf{revoked: []string{"expired", "not-by-their-clock"}, exp: over}))
	b.states["expired"] = pb.RevocationState_REVOCATION_STATE_EXPIRED
	b.states["not-by-their-clock"] = pb.RevocationState_REVOCATION_STATE_REVOKED
	b.cp.Set(double.Ref{Name: zoneList}, "expired", nil)
	b.once(t)
	if got := b.data("", zoneList); got != "not-by-their-clock" {
		t.Errorf("got %q", got)
	}
}

func TestNothingIsTakenOutByAFeedThatIsStale(t *testing.T) {
	var ahead atomic.Int64
	b := newBench(t, func(c *Config) { c.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) } })
	b.run(t)
	b.revoke("zone", "z1")
	b.hasList(t, zoneList, "z1")
	b.eventually(t, "it is up to date", func() bool { return b.bridge.Ready() == nil })
	ahead.Store(int64(2 * staleAfter))
	b.mu.Lock()
	b.states["lifted"] = pb.RevocationState_REVOCATION_STATE_LIFTED
	b.mu.Unlock()
	b.cp.Set(double.Ref{Name: zoneList}, "lifted", nil)
	b.hasList(t, zoneList, "lifted,z1")
	time.Sleep(3 * b.bridge.planes[0].Resync)
	if got := b.data("", zoneList); got != "lifted,z1" || b.bridge.Ready() == nil {
		t.Errorf("got %q, ready: %v", got, b.bridge.Ready())
	}
	b.do(func() {}) // a sign of life
	b.hasList(t, zoneList, "z1")
}

func TestWithoutAnAnswerEverythingIsKept(t *testing.T) {
	b := newBench(t, nil)
	b.states["lifted"] = pb.RevocationState_REVOCATION_STATE_LIFTED
	b.cp.Set(double.Ref{Name: zoneList}, "lifted", nil)
	b.failing, b.failWhat = errDown, "CheckRevocations"
	b.revoke("zone", "z1")
	b.once(t)
	if got := b.data("", zoneList); got != "lifted,z1" {
		t.Errorf("got %q", got)
	}
}

func TestAnEmptyAnswerTakesNoKeyAway(t *testing.T) {
	b := newBench(t, nil)
	b.run(t)
	b.eventually(t, "keys", func() bool { return b.data("", keyName+"zone-2-b") != "" })
	kept := b.keys["zone"]
	b.setKeys("zone")
	b.eventually(t, "it is reported", func() bool {
		return slices.ContainsFunc(b.bridge.Reports()[0].Items, func(i Item) bool { return i.Keyset == "zone" && i.Error != "" })
	})
	time.Sleep(5 * b.bridge.planes[0].Resync)
	b.do(func() { b.keysets = nil })
	time.Sleep(5 * b.bridge.planes[0].Resync)
	for _, k := range kept {
		if b.data("", keyName+k.GetKid()) == "" {
			t.Errorf("key %s is gone", k.GetKid())
		}
	}
}

func TestKeysThatEndAreTakenAway(t *testing.T) {
	for _, old := range []bool{false, true} { // without labels
		b := newBench(t, nil)
		b.cp.Old(old)
		b.run(t)
		b.eventually(t, "an acknowledgement", func() bool { return len(b.acknowledged()) == 2 })
		first, second := b.keys["zone"][0], b.keys["zone"][1]
		third := signingKey(t, "zone-3-c", "published")
		b.setKeys("zone", &pb.SigningKey{Kid: first.GetKid(), PublicKey: first.GetPublicKey(), State: "distrusted"},
			&pb.SigningKey{Kid: second.GetKid(), PublicKey: second.GetPublicKey(), State: "active"}, third)
		b.eventually(t, "the first key is gone", func() bool { return b.data("", keyName+"zone-1-a") == "" })
		b.eventually(t, "the others are acknowledged", func() bool { return slices.Equal(b.acknowledged(), []string{"zone-2-b", "zone-3-c"}) })
		if b.data("", keyName+"zone-2-b") != second.GetPublicKey() || b.data("", keyName+"zone-3-c") != third.GetPublicKey() {
			t.Error("the others are not there")
		}
	}
}

func TestDriftIsRepairedAndReported(t *testing.T) {
	b := newBench(t, nil)
	b.revoke("zone", "z1", "z2")
	b.run(t)
	b.hasList(t, zoneList, "z1,z2")
	b.eventually(t, "an acknowledgement", func() bool { return len(b.acknowledged()) == 2 })
	want := b.keys["zone"][0].GetPublicKey()

	b.cp.Set(double.Ref{Name: keyName + "zone-1-a"}, newPEM(t), nil)
	b.eventually(t, "the key is ours again", func() bool { return strings.Contains(b.log.String(), "it held something else") })
	b.cp.Drop(double.Ref{Name: keyName + "zone-1-a"})
	b.eventually(t, "the key is back", func() bool { return b.data("", keyName+"zone-1-a") == want })
	b.cp.Set(double.Ref{Name: zoneList}, "z2, x", nil)
	b.hasList(t, zoneList, "z2,x,z1")
	b.eventually(t, "it is logged", func() bool {
		log := b.log.String()
		return strings.Contains(log, "it held something else") && strings.Contains(log, "it had been deleted") &&
			strings.Contains(log, "1 revoked token IDs had been taken out") && strings.Contains(log, "not written as control planes read lists")
	})
	b.eventually(t, "it is up to date", func() bool { return b.bridge.Ready() == nil })
	rec := httptest.NewRecorder()
	b.bridge.Metrics().ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	body, _ := io.ReadAll(rec.Body)
	for _, want := range []string{
		`zonemint_kuma_repairs_total{control_plane="cp"} 3`, `zonemint_kuma_list_entries{control_plane="cp",secret="GlobalSecret zone-token-revocations"} 3`,
		`zonemint_kuma_writes_total{control_plane="cp",kind="key",outcome="written"} 4`, `zonemint_kuma_feed_age_seconds{keyset="zone"}`,
		`zonemint_kuma_success_time_seconds{control_plane="cp"} 1`,
	} {
		if !strings.Contains(string(body), want) {
			t.Errorf("the metrics lack %s\n%s", want, body)
		}
	}
}

func TestAKeyThatWasAwayIsAcknowledgedAnew(t *testing.T) {
	b := newBench(t, func(c *Config) { c.ControlPlanes[0].ZoneDelay = 300 * time.Millisecond })
	b.run(t)
	b.eventually(t, "an acknowledgement", func() bool { return len(b.acknowledged()) == 2 })
	before := b.said()
	b.cp.Drop(double.Ref{Name: keyName + "zone-2-b"})
	// Not the latest one: this one may not be it for long.
	b.eventually(t, "it is taken back", func() bool { return b.saidOnly(before, "zone-1-a") })
	b.eventually(t, "it is said again", func() bool { return len(b.acknowledged()) == 2 })
}

func TestOnlyWhatIsThereForLongEnoughIsAcknowledged(t *testing.T) {
	b := newBench(t, func(c *Config) { c.ControlPlanes[0].ZoneDelay = 400 * time.Millisecond })
	b.cp.FailWrites(1, http.StatusInternalServerError, false)
	b.run(t)
	b.eventually(t, "an acknowledgement", func() bool { return len(b.acknowledged()) == 2 })
	now := time.Now()
	for _, w := range b.cp.Writes() {
		if strings.HasPrefix(w.Ref.Name, keyName) && now.Sub(w.At) < 400*time.Millisecond {
			t.Errorf("%s was acknowledged %s after it was written", w.Ref, now.Sub(w.At))
		}
	}
}

func TestKeysThatAControlPlaneCannotHave(t *testing.T) {
	b := newBench(t, nil)
	b.keys["zone"] = append(b.keys["zone"], signingKey(t, "1", "retiring"),
		&pb.SigningKey{Kid: "zone-4-d", State: "published", PublicKey: "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"})
	r := b.once(t)
	if !r.Failed() {
		t.Error("a key that cannot be written is not a failure")
	}
	if i := r.item(t, "public-key-1"); i.Outcome != Own || i.Error != "" {
		t.Errorf("got %+v", i)
	}
	if i := r.item(t, "public-key-zone-4-d"); i.Outcome != Refused {
		t.Errorf("got %+v", i)
	}
	if got := b.acknowledged(); !slices.Equal(got, []string{"zone-1-a", "zone-2-b"}) {
		t.Errorf("acknowledged: got %v", got)
	}
}

func TestAListThatIsTooLargeStaysAndTheRestGoesOn(t *testing.T) {
	b := newBench(t, nil)
	b.cp.Set(double.Ref{Name: zoneList}, "theirs", nil)
	var many []string
	for n := range 30_000 {
		many = append(many, fmt.Sprintf("01a1fcba-fed9-72e6-85ae-%012d", n))
	}
	b.revoke("zone", many...)
	b.revoke("user", "u1")
	r := b.once(t)
	if got := b.data("", zoneList); got != "theirs" {
		t.Errorf("the list has %d bytes", len(got))
	}
	i := r.item(t, "GlobalSecret "+zoneList)
	if i.Outcome != Failed || !strings.Contains(i.Error, "distrust") || !strings.Contains(i.Error, "shorter lifetimes") {
		t.Errorf("got %+v", i)
	}
	if b.data("", "user-token-revocations") != "u1" || len(b.acknowledged()) != 2 {
		t.Error("the rest did not go on")
	}
}

func TestAMissingMeshBlocksNothingAndIsTriedAgain(t *testing.T) {
	b := newBench(t, nil)
	b.keysets = append(b.keysets, &pb.Keyset{Name: "dataplane/east", Profile: pb.Profile_PROFILE_DATAPLANE, Mesh: "east"})
	b.run(t)
	b.revoke("dataplane/east", "e1")
	b.revoke("zone", "z1")
	b.hasList(t, zoneList, "z1")
	b.hasList(t, "dataplane-token-revocations-east", "e1")
	b.eventually(t, "it is reported", func() bool { return b.bridge.Ready() != nil && strings.Contains(b.bridge.Ready().Error(), "mesh") })
	b.cp.AddMesh("east")
	b.eventually(t, "the mesh has it", func() bool { return b.data("east", "dataplane-token-revocations-east") == "e1" })
	b.eventually(t, "it is up to date", func() bool { return b.bridge.Ready() == nil })
}

func TestTwoZoneKeysetsShareAList(t *testing.T) {
	b := newBench(t, nil)
	b.keysets = append(b.keysets, &pb.Keyset{Name: "edge", Profile: pb.Profile_PROFILE_ZONE})
	b.keys["edge"] = []*pb.SigningKey{signingKey(t, "edge-1-a", "active")}
	b.run(t)
	b.revoke("zone", "z1")
	b.hasList(t, zoneList, "z1")
	b.revoke("edge", "e1")
	b.hasList(t, zoneList, "z1,e1")
	b.lift("zone", "z1")
	b.hasList(t, zoneList, "e1")
	b.eventually(t, "both keysets' keys", func() bool {
		return b.data("", keyName+"edge-1-a") != "" && b.data("", keyName+"zone-1-a") != ""
	})
}

func TestAnotherWriterIsMerged(t *testing.T) {
	b := newBench(t, nil)
	b.run(t)
	b.revoke("zone", "z1")
	b.hasList(t, zoneList, "z1")
	// They write after the bridge has read back, and before its next write.
	b.cp.Set(double.Ref{Name: zoneList}, "z1,x", nil)
	b.revoke("zone", "z2")
	b.hasList(t, zoneList, "z1,x,z2")
	// They write between the bridge's read and its write, from what they had read: on
	// REST theirs is lost, and what zonemint revoked is not.
	b.cp.Intrude(double.Ref{Name: zoneList}, func(now string) string { return now + ",y" })
	b.revoke("zone", "z3")
	b.eventually(t, "z3 is there", func() bool { return strings.Contains(b.data("", zoneList), "z3") })
	b.cp.Intrude(double.Ref{Name: zoneList}, func(string) string { return "w" })
	b.eventually(t, "all are there", func() bool {
		list := strings.Split(b.data("", zoneList), ",")
		return !slices.ContainsFunc([]string{"z1", "z2", "z3"}, func(jti string) bool { return !slices.Contains(list, jti) })
	})
}

func TestFaultsOfTheControlPlaneConverge(t *testing.T) {
	b := newBench(t, nil)
	b.run(t)
	n := 0
	converges := func(what string) {
		t.Helper()
		n++
		jti := fmt.Sprintf("r%d", n)
		b.revoke("zone", jti)
		b.eventually(t, "after "+what, func() bool {
			return slices.Contains(strings.Split(b.data("", zoneList), ","), jti) && b.cp.Pending() == 0 && b.bridge.Ready() == nil
		})
	}
	converges("nothing")
	for _, f := range []struct {
		what string
		do   func()
	}{
		{"5xx", func() { b.cp.FailNext(4, http.StatusServiceUnavailable) }},
		{"writes that fail", func() { b.cp.FailWrites(2, http.StatusInternalServerError, false) }},
		{"writes that fail and are applied", func() { b.cp.FailWrites(1, http.StatusInternalServerError, true) }},
		{"a lost reply", func() { b.cp.LoseReplies(1) }},
		{"broken connections", func() { b.cp.Break(3) }},
		{"404s", func() { b.cp.FailNext(2, http.StatusNotFound) }},
		{"403s", func() { b.cp.FailNext(2, http.StatusForbidden) }},
	} {
		f.do()
		converges(f.what)
	}
	b.server.Stop()
	b.revoke("zone", "while-it-was-down")
	time.Sleep(300 * time.Millisecond)
	// Somebody else may have its port for a moment.
	b.eventually(t, "the control plane is back", func() bool { return b.server.Start() == nil })
	b.hasSuffix(t, ",while-it-was-down")
	b.cp.ReadOnly(true)
	b.revoke("zone", "read-only")
	b.eventually(t, "it says what to do", func() bool {
		err := b.bridge.Ready()
		return err != nil && strings.Contains(err.Error(), "kubernetes:")
	})
	b.cp.ReadOnly(false)
	b.hasSuffix(t, ",read-only")
}

// hasSuffix waits until the list of zone tokens ends so.
func (b *bench) hasSuffix(t *testing.T, want string) {
	t.Helper()
	b.eventually(t, "the list ends with "+want, func() bool { return strings.HasSuffix(b.data("", zoneList), want) })
}

func TestA404ThatIsNotTrueReplacesNothing(t *testing.T) {
	b := newBench(t, func(c *Config) { c.ControlPlanes[0].Keysets = []string{"zone"} })
	b.cp.Set(double.Ref{Name: zoneList}, "theirs", nil)
	b.revoke("zone", "z1")
	b.cp.FailNext(1, http.StatusNotFound)
	r := b.once(t)
	if got := b.data("", zoneList); got != "theirs" || !r.Failed() {
		t.Errorf("got %q, said %+v", got, r)
	}
}

func TestZonemintMayBeAway(t *testing.T) {
	b := newBench(t, nil)
	b.failing = errDown
	b.run(t)
	time.Sleep(300 * time.Millisecond)
	if w := b.cp.Writes(); len(w) > 0 {
		t.Fatalf("it wrote %v though it knows nothing", w)
	}
	if b.bridge.Ready() == nil {
		t.Error("it says that it is ready")
	}
	b.revoke("zone", "z1")
	b.do(func() { b.failing = nil })
	b.hasList(t, zoneList, "z1")
	b.do(func() { b.failing = errDown })
	b.cp.Drop(double.Ref{Name: zoneList}) // what it knows it keeps repairing
	b.hasList(t, zoneList, "z1")
}
