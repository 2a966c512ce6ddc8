package service_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/service"
	"github.com/zonemint/zonemint/signer"
	"github.com/zonemint/zonemint/signer/signertest"
)

// pair is a server whose keyset zone has its keys in one backend and a standby in
// another.
type pair struct {
	*server
	own, standby *signertest.Fake
}

// returnAfter is how long the own backend has to be well.
const returnAfter = time.Second

func newPair(t *testing.T) *pair {
	t.Helper()
	w, own := remote(t, signertest.FakeOptions{})
	standby := signertest.NewFake(t, signertest.FakeOptions{})
	w.backends["kms"] = standby
	cfg := swift(w)
	cfg.Standby = service.Standby{ReturnAfter: returnAfter}
	ks := zoneKeyset()
	ks.Standby = "kms"
	p := &pair{w.start(t, cfg, ks), own, standby}
	eventually(t, "the standby is ready", func() bool { return p.role("standby", "active") != "" && p.role("standby", "published") != "" })
	p.sound(t)
	return p
}

// role returns the kid of the key in a role and state, "" if there is none.
func (p *pair) role(role, state string) string {
	list, err := p.as(p.admin).keys.ListSigningKeys(context.Background(), &pb.ListSigningKeysRequest{Keyset: "zone"})
	for _, k := range list.GetSigningKeys() {
		if err == nil && k.GetRole() == role && k.GetState() == state {
			return k.GetKid()
		}
	}
	return ""
}

// hang is how long a backend that hangs takes.
const hang = time.Minute

// wantSignedBy wants a token, soon, that the key in that role has signed.
func (p *pair) wantSignedBy(t *testing.T, role string) {
	t.Helper()
	began := time.Now()
	if tok := p.mint(t, time.Hour); tok.GetKid() != p.role(role, "active") {
		t.Errorf("%s has signed, want the %s key %s", tok.GetKid(), role, p.role(role, "active"))
	}
	if took := time.Since(began); took > hang/2 {
		t.Errorf("it took %s", took)
	}
}

func (p *pair) switches(t *testing.T) (in, down int) {
	t.Helper()
	for _, action := range p.audited(t) {
		switch action {
		case "keyset.standby-in":
			in++
		case "keyset.standby-down":
			down++
		}
	}
	return in, down
}

// The keyset's own backend hangs: requests go on with the standby, everybody soon
// does so at once, and when the backend has been well for a while its key signs again.
func TestStandbySigns(t *testing.T) {
	p := newPair(t)
	if kids := p.served(t, "zone"); len(kids) != 4 {
		t.Errorf("the JWK set has %v, want the keys of both roles with their successors", kids)
	}
	p.wantSignedBy(t, "primary")
	p.own.Inject(signertest.Fault{Op: signertest.OpSign, Delay: hang, Err: signertest.Fail(signer.Unavailable)})
	for range 5 {
		p.wantSignedBy(t, "standby")
	}
	began, asked := time.Now(), p.own.Calls(signertest.OpSign)
	for range 20 {
		p.mint(t, time.Hour)
	}
	// Now and then it is asked whether it is well.
	if n, took := p.own.Calls(signertest.OpSign)-asked, time.Since(began); n > 3+int(1.5*took.Seconds()) {
		t.Errorf("for 20 tokens of the standby the other backend was asked %d times in %s: somebody still waits for it", n, took)
	}
	batch := must(p.as(p.admin).tokens.IssueTokens(context.Background(), &pb.IssueTokensRequest{Items: []*pb.IssueTokensItem{
		{Profile: &pb.IssueTokensItem_Zone{Zone: &pb.IssueZoneTokenRequest{Zone: "west", ValidFor: hour()}}},
	}}))
	if tok := batch.GetResults()[0].GetToken().GetToken(); tok == "" {
		t.Errorf("a batch: %v", batch)
	} else {
		p.verifies(t, tok, "")
	}
	if w := p.private("/healthz/ready"); w.Code != 200 {
		t.Errorf("readiness is %d %q", w.Code, w.Body)
	}
	eventually(t, "the metrics say that the standby signs", func() bool {
		metrics := p.private("/metrics").Body.String()
		return strings.Contains(metrics, `zonemint_standby_signing{keyset="zone"} 1`) &&
			strings.Contains(metrics, `zonemint_standby_switches_total{keyset="zone",to="kms"} 1`)
	})
	eventually(t, "the switch is audited", func() bool { in, _ := p.switches(t); return in == 1 })

	healed := time.Now()
	p.own.Heal()
	eventually(t, "the keyset's own key signs again", func() bool { return p.mint(t, time.Hour).GetKid() == p.role("primary", "active") })
	if took := time.Since(healed); took < returnAfter {
		t.Errorf("it went back after %s, want %s at least", took, returnAfter)
	}
	for range 20 {
		p.wantSignedBy(t, "primary")
	}
	eventually(t, "the way back is audited", func() bool { in, down := p.switches(t); return in == 1 && down == 1 })
	p.sound(t)
}

// A backend that comes back and refuses is an incident: the standby does not cover it
// up, and callers see it.
func TestStandbyEndsWhereAnIncidentBegins(t *testing.T) {
	p := newPair(t)
	p.own.Inject(signertest.Fault{Op: signertest.OpSign, Err: signertest.Fail(signer.Unavailable)})
	p.wantSignedBy(t, "standby")
	eventually(t, "everybody goes to the standby", func() bool { p.mint(t, time.Hour); in, _ := p.switches(t); return in == 1 })
	p.own.Heal()
	p.own.Inject(signertest.Fault{Op: signertest.OpSign, Err: signertest.Fail(signer.Denied)})
	eventually(t, "callers see it", func() bool {
		_, err := p.issue(t, p.admin)
		return connect.CodeOf(err) == connect.CodeFailedPrecondition
	})
	eventually(t, "it is audited", func() bool { _, down := p.switches(t); return down == 1 })
}

// A backend that fails again soon after it was well is given longer and longer.
func TestStandbyDoesNotFlap(t *testing.T) {
	p := newPair(t)
	var seen time.Time // the standby, at the last
	least := returnAfter
	for i := range 3 {
		p.own.Inject(signertest.Fault{Op: signertest.OpSign, Err: signertest.Fail(signer.Unavailable)})
		eventually(t, "the standby signs", func() bool { return p.mint(t, time.Hour).GetKid() == p.role("standby", "active") })
		eventually(t, "everybody goes to it", func() bool { p.mint(t, time.Hour); in, _ := p.switches(t); return in == i+1 })
		switch well := time.Since(seen); {
		case i > 0 && well < 2*least:
			least *= 2
		case i > 0:
			t.Logf("between two outages this machine took %s, too long for the second to be soon", well)
			least = returnAfter
		}
		healed := time.Now()
		p.own.Heal()
		for {
			asked := time.Now()
			if p.mint(t, time.Hour).GetKid() == p.role("primary", "active") {
				break
			}
			if seen = asked; seen.Sub(healed) > 2*patience {
				t.Fatal("it never signs again")
			}
			time.Sleep(20 * time.Millisecond)
		}
		if rest := time.Since(healed); rest < least {
			t.Errorf("the %d. return came after %s, want %s at least", i+1, rest, least)
		}
	}
}

// A batch that meets the outage is begun again as a whole.
func TestStandbySignsBatches(t *testing.T) {
	p := newPair(t)
	p.own.Inject(signertest.Fault{Op: signertest.OpSign, Err: signertest.Fail(signer.Unavailable)})
	var items []*pb.IssueTokensItem
	for range 30 {
		items = append(items, &pb.IssueTokensItem{Profile: &pb.IssueTokensItem_Zone{Zone: &pb.IssueZoneTokenRequest{Zone: "west", ValidFor: hour()}}})
	}
	for _, r := range must(p.as(p.admin).tokens.IssueTokens(context.Background(), &pb.IssueTokensRequest{Items: items})).GetResults() {
		if r.GetToken() == nil {
			t.Fatalf("an item failed: %v", r)
		}
		p.verifies(t, r.GetToken().GetToken(), "")
	}
}

// What a backend denies or answers wrongly is an incident, which a standby must not
// cover up.
func TestStandbyDoesNotCoverIncidents(t *testing.T) {
	p := newPair(t)
	for name, c := range map[string]struct {
		fault signertest.Fault
		want  connect.Code
	}{
		"denied":        {signertest.Fault{Op: signertest.OpSign, Err: signertest.Fail(signer.Denied)}, connect.CodeFailedPrecondition},
		"corrupt":       {signertest.Fault{Op: signertest.OpSign, Mangle: true}, connect.CodeInternal},
		"not found":     {signertest.Fault{Op: signertest.OpSign, Err: signertest.Fail(signer.NotFound)}, connect.CodeFailedPrecondition},
		"misconfigured": {signertest.Fault{Op: signertest.OpSign, Err: signertest.Fail(signer.Misconfigured)}, connect.CodeFailedPrecondition},
	} {
		p.own.Inject(c.fault)
		signed := p.standby.Calls(signertest.OpSign)
		for range 10 {
			_, err := p.issue(t, p.admin)
			wantCode(t, err, c.want)
		}
		if n := p.standby.Calls(signertest.OpSign) - signed; n != 0 {
			t.Errorf("%s: the standby was asked for %d signatures", name, n)
		}
		p.own.Heal()
	}
	if in, _ := p.switches(t); in != 0 {
		t.Errorf("the standby signed %d times", in)
	}
}

// A backend that throttles now and then is left alone; one that throttles most
// requests is stood in for.
func TestStandbyForABackendThatThrottles(t *testing.T) {
	p := newPair(t)
	p.own.Inject(signertest.Fault{Op: signertest.OpSign, Times: 3, Err: signertest.Fail(signer.Throttled)})
	codes := map[connect.Code]int{}
	for range 10 {
		_, err := p.issue(t, p.admin)
		codes[connect.CodeOf(err)]++
		if err != nil && !slices.Contains([]string{"1", "2"}, strings.Join(errorHeader(err, "Retry-After"), ",")) {
			t.Errorf("%v says nothing of when to come back", err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	if in, _ := p.switches(t); in != 0 || codes[connect.CodeResourceExhausted] == 0 {
		t.Errorf("%d switches, and the answers were %v", in, codes)
	}
	p.own.Inject(signertest.Fault{Op: signertest.OpSign, Err: signertest.Fail(signer.Throttled)})
	eventually(t, "the standby signs", func() bool {
		tok, err := p.issue(t, p.admin)
		return err == nil && tok.GetKid() == p.role("standby", "active")
	})
	eventually(t, "the switch is audited", func() bool { in, _ := p.switches(t); return in == 1 })
}

func errorHeader(err error, name string) []string {
	if e, ok := errors.AsType[*connect.Error](err); ok {
		return e.Meta().Values(name)
	}
	return nil
}

// Both backends are away: the caller is told so, and neither is waited for in vain.
func TestNoBackendIsThere(t *testing.T) {
	p := newPair(t)
	p.own.Inject(signertest.Fault{Op: signertest.OpSign, Err: signertest.Fail(signer.Unavailable)})
	p.standby.Inject(signertest.Fault{Op: signertest.OpSign, Err: signertest.Fail(signer.Unavailable)})
	for range 10 {
		_, err := p.issue(t, p.admin)
		wantCode(t, err, connect.CodeUnavailable)
	}
	eventually(t, "it is not ready", func() bool { return p.private("/healthz/ready").Code == 503 })
	p.standby.Heal()
	eventually(t, "the standby signs", func() bool { _, err := p.issue(t, p.admin); return err == nil })
}

// A standby is a decision of its own, and one that weakens custody is a bigger one.
func TestStandbyPolicy(t *testing.T) {
	w, _ := remote(t, signertest.FakeOptions{Custody: signer.CustodyHardware})
	w.backends["soft"] = signertest.NewFake(t, signertest.FakeOptions{Custody: signer.CustodyService})
	w.backends["hsm"] = signertest.NewFake(t, signertest.FakeOptions{Custody: signer.CustodyHardware})
	p := &pair{server: w.start(t, swift(w), zoneKeyset())}
	for name, c := range map[string]struct {
		ks   *pb.Keyset
		want string
	}{
		"the same backend": {&pb.Keyset{Standby: "local"}, "own backend"},
		"no such backend":  {&pb.Keyset{Standby: "nosuch"}, "not configured"},
		"a weaker custody": {&pb.Keyset{Standby: "soft"}, "allow_weaker_standby"},
	} {
		_, err := p.update(t, c.ks, "standby")
		if wantCode(t, err, connect.CodeInvalidArgument); err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v does not say %q", name, err, c.want)
		}
	}
	must(p.update(t, &pb.Keyset{Standby: "soft", AllowWeakerStandby: true}, "standby", "allow_weaker_standby"))
	eventually(t, "the standby is ready", func() bool { return p.role("standby", "active") != "" })
	first := p.role("standby", "active")
	must(p.update(t, &pb.Keyset{Standby: "hsm"}, "standby"))
	eventually(t, "the standby moves", func() bool { k := p.role("standby", "active"); return k != "" && k != first })
	p.sound(t)
	must(p.update(t, &pb.Keyset{}, "standby"))
	eventually(t, "the standby goes", func() bool {
		return p.role("standby", "active") == "" && p.role("standby", "published") == "" && p.role("standby", "creating") == ""
	})
	p.sound(t)
	if p.role("primary", "active") == "" || p.role("primary", "published") == "" {
		t.Error("the keyset's own keys went with it")
	}
}
