package integration

import (
	"context"
	"net/http"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
)

// TestCutOffReplica cuts one of three replicas off from the database and rotates
// meanwhile. Within its lease it stops to issue and to be ready, and nothing that it
// says may be used for longer. A key that it does not know begins to sign only
// after that.
func TestCutOffReplica(t *testing.T) {
	f := newFleet(t)
	for i := range rounds(2, 20) {
		f.playCutOff(t, f.members[2], i%2 == 1)
	}
	f.stop(t)
}

func (f *fleet) playCutOff(t *testing.T, r *member, kind bool) {
	f.awaitSuccessor(t)
	r.client.mustIssueSoon(t, "before")

	mend := sync.OnceFunc(r.cutOff(kind))
	defer mend()
	at := time.Now() // the last heartbeat was sent before
	seen := r.observe(t, at)
	defer seen()
	f.mustRotate(t, true) // to the successor that it knows; the next one it never hears of
	k := f.mustActive(t, "zone")
	f.mustRotate(t, false)
	next := f.mustActive(t, "zone")
	o := seen()
	if next.GetSerial() != k.GetSerial()+1 {
		t.Errorf("serial %d signs after serial %d", next.GetSerial(), k.GetSerial())
	}

	lease := at.Add(fleetLease)
	if o.usable.After(lease) {
		t.Errorf("a JWK set could be used until %s after the lease", o.usable.Sub(lease))
	}
	if slack := balancerInterval; o.ready.After(lease.Add(slack)) {
		t.Errorf("ready at %s, the lease ended at %s", o.ready, lease)
	}
	if o.issued.After(at) {
		t.Errorf("a request of %s after the cut brought a token", o.issued.Sub(at))
	}
	if !o.stale {
		t.Error("max-age did not fall to 0")
	}
	activated := next.GetActivatedAt().AsTime()
	if !activated.After(o.usable) {
		t.Errorf("the next key signed %s before the last JWK set without it was used up", o.usable.Sub(activated))
	}
	t.Logf("after the cut (silent: %v): ready until %s, JWK sets of it used up at %s, lease over at %s, the next key signed at %s",
		kind, o.ready.Sub(at).Round(time.Millisecond), o.usable.Sub(at).Round(time.Millisecond), fleetLease, activated.Sub(at).Round(time.Millisecond))
	mend()
	f.awaitReturn(t, r)
	r.client.mustIssueSoon(t, "after")
	wantValid(t, f.members[0].keys(t, "zone"), r.client.mustIssueSoon(t, "after"))
	wantValid(t, r.keys(t, "zone"), f.members[0].client.mustIssueSoon(t, "after"))
}

func (f *fleet) mustRotate(t *testing.T, now bool) {
	t.Helper()
	if _, err := f.rotate(t.Context(), "zone", now); err != nil {
		t.Fatal(err)
	}
}

// observed is what a replica that is cut off was seen to do.
type observed struct {
	usable time.Time // the end of the JWK set that may be used for longest
	stale  bool      // the last set may not be kept at all
	ready  time.Time // when it was last asked and said that it was; the cut if it never did
	issued time.Time // when the last request was made that brought a token
}

// observe watches a replica until the function that it returns is called. What counts
// is when it was asked: an answer may be late because this machine is busy.
func (r *member) observe(t *testing.T, cut time.Time) func() observed {
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	const patience = 10 * time.Second
	o := observed{ready: cut}
	var watchers sync.WaitGroup
	watchers.Go(func() {
		for ctx.Err() == nil {
			asked := time.Now()
			_, age, err := fetchSet(context.WithoutCancel(ctx), http.DefaultClient, "http://"+r.public+"/keysets/zone/jwks.json")
			if err != nil {
				t.Error("the JWK set of a replica that is cut off: ", err)
				return
			}
			if until := asked.Add(age); age > 0 && until.After(o.usable) {
				o.usable = until
			}
			o.stale = age == 0
			time.Sleep(10 * time.Millisecond)
		}
	})
	watchers.Go(func() {
		asked := time.Now()
		for ctx.Err() == nil && r.isReady(ctx, patience) {
			o.ready = asked
			time.Sleep(10 * time.Millisecond)
			asked = time.Now()
		}
		for ctx.Err() == nil {
			if r.isReady(ctx, patience) {
				t.Error("it was ready again without the database")
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	})
	watchers.Go(func() {
		for ctx.Err() == nil {
			asked, soon := time.Now(), time.Second // until it knows, requests wait for their end
			if asked.After(cut.Add(fleetLease)) {
				soon = patience
			}
			_, err := r.client.issue(context.WithoutCancel(ctx), "during", soon)
			switch took := time.Since(asked); {
			case err == nil:
				o.issued = asked
			case codeOf(err) != connect.CodeUnavailable && asked.After(cut.Add(fleetLease)):
				t.Errorf("after the lease a request failed within %s with %v", took, err)
			}
			time.Sleep(10 * time.Millisecond)
		}
	})
	return func() observed {
		cancel()
		watchers.Wait()
		return o
	}
}
