package integration

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/token"
)

// traffic is callers of every replica who ask for tokens, each of which is
// verified by everybody at once, and some of them again when they have grown old.
type traffic struct {
	audiences []*audience
	ctx       context.Context // ends the traffic
	end       context.CancelFunc
	callers   sync.WaitGroup
	aged      atomic.Int64 // tokens that were verified again

	mu        sync.Mutex
	tokens    map[string]int // by keyset
	slowest   time.Duration  // request to a replica that was not cut off
	refused   int            // requests to a replica that was cut off
	elsewhere map[string]int // failed requests to one that was not, by what they got
	wrong     []error
	dead      map[string]bool // key IDs that were distrusted
	died      int             // tokens of theirs that were refused
}

const (
	callersPerReplica = 4
	trafficPause      = 30 * time.Millisecond
	// Tokens live for so long that their keys are removed while a long test runs.
	trafficValidFor = 20 * time.Second
	trafficAge      = 8 * time.Second
)

// startTraffic begins traffic over some keysets.
func (f *fleet) startTraffic(t *testing.T, keysets ...keyset) *traffic {
	t.Helper()
	tr := &traffic{tokens: map[string]int{}, elsewhere: map[string]int{}, dead: map[string]bool{}}
	for _, k := range keysets {
		tr.audiences = append(tr.audiences, f.gather(t, k.name))
	}
	tr.ctx, tr.end = context.WithCancel(context.WithoutCancel(t.Context()))
	for i, r := range f.members {
		for j := range callersPerReplica {
			tr.callers.Go(func() { tr.call(r, i+j, fmt.Sprintf("zone-%d-%d", i, j)) })
		}
	}
	t.Cleanup(func() { tr.end(); tr.callers.Wait() })
	return tr
}

// call asks one replica for tokens of one keyset after the other.
func (tr *traffic) call(r *member, n int, zone string) {
	var old []issued
	for ; tr.ctx.Err() == nil; n++ {
		a := tr.audiences[n%len(tr.audiences)]
		if k, ok := tr.issue(r, a.keyset, zone); ok {
			tr.note(k, a.verify(context.WithoutCancel(tr.ctx), k))
			tr.count(k)
			if n%9 == 0 { // of every keyset, however many there are
				old = append(old, k)
			}
		}
		old = tr.verifyOld(old)
		time.Sleep(trafficPause)
	}
}

// verifyOld verifies the tokens that are old enough again, and returns the others.
func (tr *traffic) verifyOld(old []issued) []issued {
	for len(old) > 0 && time.Since(old[0].at) > trafficAge {
		k := old[0]
		old = old[1:]
		if time.Since(k.at) > trafficValidFor/2 {
			continue // this machine is so busy that it might expire meanwhile
		}
		for _, a := range tr.audiences {
			if a.keyset == k.keyset {
				tr.note(k, a.verify(context.WithoutCancel(tr.ctx), k))
				tr.aged.Add(1)
			}
		}
	}
	return old
}

// issue asks a replica for a token.
func (tr *traffic) issue(r *member, keyset, zone string) (issued, bool) {
	from := time.Now()
	// A replica that is cut off in silence in the midst of a rotation keeps everybody
	// from issuing from that keyset until Postgres gives it up, after three seconds.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(tr.ctx), 15*time.Second)
	defer cancel()
	resp, err := r.client.tokens.IssueZoneToken(ctx, &pb.IssueZoneTokenRequest{
		Keyset: keyset, Zone: zone, ValidFor: durationpb.New(trafficValidFor),
	})
	if took := time.Since(from); !r.behind(from, time.Now(), 0) {
		tr.slow(took)
	}
	if err == nil {
		return issued{zone: zone, keyset: keyset, token: resp.GetToken(), jti: resp.GetJti(), kid: resp.GetKid(), at: from}, true
	}
	tr.mu.Lock()
	defer tr.mu.Unlock()
	code := codeOf(err)
	if r.behind(from, time.Now(), 0) && (code == connect.CodeUnavailable || code == connect.CodeDeadlineExceeded) {
		tr.refused++
		return issued{}, false
	}
	if tr.elsewhere[err.Error()]++; code != connect.CodeUnavailable {
		tr.wrong = append(tr.wrong, fmt.Errorf("%s did not issue: %w", r.name, err))
	}
	return issued{}, false
}

// note takes in what was wrong with a token. One of a key that is distrusted by
// now may be refused.
func (tr *traffic) note(k issued, wrong []error) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for _, err := range wrong {
		if tr.dead[k.kid] && token.Reason(err) == "unknown_key" {
			tr.died++
			continue
		}
		tr.wrong = append(tr.wrong, err)
	}
}

func (tr *traffic) slow(took time.Duration) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.slowest = max(tr.slowest, took)
}

func (tr *traffic) count(k issued) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.tokens[k.keyset]++
}

// expect says that a key is about to be distrusted.
func (tr *traffic) expect(kid string) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.dead[kid] = true
}

// received returns how many tokens of a keyset there are so far.
func (tr *traffic) received(keyset string) int {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.tokens[keyset]
}

// stop ends the traffic, fails the test for whatever went wrong, and says what
// there was.
func (tr *traffic) stop(t *testing.T) {
	t.Helper()
	tr.end()
	tr.callers.Wait()
	for i, err := range tr.wrong {
		if i == 10 {
			t.Errorf("and %d more", len(tr.wrong)-i)
			break
		}
		t.Error(err)
	}
	tokens, accepted, excused, delayed := 0, 0, 0, 0
	for n := range maps.Values(tr.tokens) {
		tokens += n
	}
	for _, a := range tr.audiences {
		yes, no, late := a.counts()
		accepted, excused, delayed = accepted+yes, excused+no, delayed+late
	}
	t.Logf("%d tokens, %d of them looked at again when they were %s old; accepted %d times, wrongly refused %d times, "+
		"unknown %d times to verifiers whose replica was cut off, refused %d times while the machine paused; requests refused by replicas that were cut off: %d, by others: %v, the slowest of theirs took %s; refused for a distrusted key: %d",
		tokens, tr.aged.Load(), trafficAge, accepted, len(tr.wrong), excused, delayed, tr.refused, tr.elsewhere, tr.slowest.Round(time.Millisecond), tr.died)
}
