package integration

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
)

// What is asked of a cloud that makes fewer signatures.
const (
	throttledTo  = 50 // signatures a second
	greedyAsks   = 490
	modestAsks   = 10
	demandTime   = 5 * time.Second         // deadline of a request
	refusedSoon  = 1500 * time.Millisecond // of nearly all that are refused
	queueMost    = 256
	recoversSoon = 10 * time.Second
)

// TestThrottledBackend has a cloud's KMS bear a tenth of the signatures that it is
// asked for, nearly all by one keyset. The service asks for about as many as there
// are, has the keysets take turns, and tells the others at once when to come back.
// When the limit is gone everybody is served again.
func TestThrottledBackend(t *testing.T) {
	onBothClouds(t, func(t *testing.T, start startCloud) {
		c := start(t, false)
		db := newSQLite(t, t.TempDir())
		conf := inCloud(c, keyset{"greedy", "zone", "ES256"}, keyset{"modest", "zone", "ES256"})
		conf.leaseTTL = 3 * shortLease // nobody is to be refused because a slow disk kept the server from renewing it
		in := installAdmin(t, db, conf)
		s, m := in.startWith(t, c), watchMachineIn(t)
		signed := c.countSigned()
		count := func() (asked, made int) { return c.calls()[c.signs()], int(signed.Load()) }
		first, _ := count()
		queue := s.watchQueue(t)

		c.limit(throttledTo)
		greedy := startDemand(t, s, in.admin, "greedy", greedyAsks)
		modest := startDemand(t, s, in.admin, "modest", modestAsks)
		time.Sleep(2 * time.Second) // in which the service finds out
		asked, made := count()
		t.Logf("in the first two seconds the double signed %d times and throttled %d times", made, asked-first-made)
		from, until, asked, made := steadily(t, m, count)
		c.limit(0)
		recovered := awaitFullRate(t, until, greedy, modest)
		answers := slices.Concat(greedy.stop(), modest.stop())

		wantThrottled(t, until.Sub(from), made, asked-made)
		for _, d := range []*demand{greedy, modest} {
			t.Logf("%s: %s", d.keyset, d.summary(from, until))
			wantValid(t, s.keys(t, d.keyset), d.tokens()...)
			db.wantRows(t, d.tokens())
		}
		if got, wanted := modest.served(from, until); 10*got < 9*wanted {
			t.Errorf("the modest keyset got %d of the %d tokens that it asked for", got, wanted)
		}
		wantHints(t, m, answers)
		if most := queue(); most == 0 || most > queueMost {
			t.Errorf("%d requests waited at the most, want 1 to %d", most, queueMost)
		} else {
			t.Logf("at the most %d requests waited", most)
		}
		t.Logf("full rate %s after the limit was gone", recovered.Round(10*time.Millisecond))
		s.stop(t)
		in.verifyLedger(t)
	})
}

// steadily returns how often the cloud was asked to sign and did in a time in which the
// machine did not keep everybody waiting, or after some attempts in any.
func steadily(t *testing.T, m *machine, count func() (asked, made int)) (from, until time.Time, asked, made int) {
	t.Helper()
	for attempt := range 4 {
		from = time.Now()
		askedBefore, madeBefore := count()
		time.Sleep(time.Duration(rounds(8, 60)) * time.Second)
		until = time.Now()
		asked, made = count()
		asked, made = asked-askedBefore, made-madeBefore
		paused := m.paused(from)
		if paused < until.Sub(from)/10 {
			break
		}
		t.Logf("attempt %d: the machine paused for %s", attempt+1, paused)
	}
	return from, until, asked, made
}

// wantThrottled wants nearly everything to be made that the cloud can make, and
// little to be asked for in vain.
func wantThrottled(t *testing.T, in time.Duration, signed, throttled int) {
	t.Helper()
	perSecond := float64(signed) / in.Seconds()
	t.Logf("in %s the double signed %d times, %.1f a second, and throttled %d times, %.1f %%",
		in.Round(time.Millisecond), signed, perSecond, throttled, 100*float64(throttled)/float64(max(signed, 1)))
	if perSecond < 0.6*throttledTo {
		t.Errorf("of %d signatures a second %.1f were made", throttledTo, perSecond)
	}
	if 100*throttled > 15*signed {
		t.Errorf("the double throttled %d times and signed %d times", throttled, signed)
	}
}

// wantHints wants nobody to be refused for another reason than that there was too
// much to do, and each to be told so soon, and when to come back. When the machine
// paused it takes no account of time: many ask at once after it.
func wantHints(t *testing.T, m *machine, answers []answer) {
	t.Helper()
	var waits []time.Duration
	wrong := 0
	for _, a := range answers {
		disturbed := a.err != nil && m.longest(a.at.Add(-time.Second), a.at.Add(a.took)) > 200*time.Millisecond
		code := codeOf(a.err)
		switch {
		case a.err == nil, disturbed && (code != connect.CodeResourceExhausted || a.hint != ""), neverRead(a.err):
			continue
		case code != connect.CodeResourceExhausted || a.hint == "" || a.took > demandTime:
			if wrong++; wrong <= 5 {
				t.Errorf("after %s a request failed with %v, and the hint %q", a.took, a.err, a.hint)
			}
		}
		for _, d := range m.within(a.at, a.at.Add(a.took)) {
			a.took -= d
		}
		waits = append(waits, a.took)
	}
	if wrong > 5 {
		t.Errorf("and so did %d more", wrong-5)
	}
	slices.Sort(waits)
	if n := len(waits); n == 0 {
		t.Error("nobody was refused")
	} else if late := waits[n*99/100]; late > refusedSoon {
		t.Errorf("of 100 that were refused one was after %s", late)
	}
}

// awaitFullRate waits until nobody is refused any more, and returns how long after the
// limit was gone somebody was.
func awaitFullRate(t *testing.T, lifted time.Time, all ...*demand) time.Duration {
	t.Helper()
	const calm = 2 * time.Second
	last := func() (at time.Time) {
		for _, d := range all {
			if f := d.lastFailure(); f.After(at) {
				at = f
			}
		}
		return at
	}
	took := settles(recoversSoon+calm, func() bool { return time.Since(last()) > calm && time.Since(lifted) > calm })
	if took > recoversSoon+calm {
		t.Errorf("%s after the limit was gone requests are still refused", took)
	}
	return max(0, last().Sub(lifted))
}

// watchQueue looks at how many requests wait for the backend, and returns what tells
// how many did at the most.
func (s *server) watchQueue(t *testing.T) (most func() int) {
	t.Helper()
	var seen atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	pattern := regexp.MustCompile(`(?m)^zonemint_backend_queue\{[^}]*backend="kms"[^}]*\} ([0-9.e+]+)$`)
	wg.Go(func() {
		for ctx.Err() == nil {
			if m := pattern.FindSubmatch(get(t, s.private, "/metrics").body); m != nil {
				n, _ := strconv.ParseFloat(string(m[1]), 64)
				seen.Store(max(seen.Load(), int64(n)))
			}
			time.Sleep(100 * time.Millisecond)
		}
	})
	end := sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(end)
	return func() int { end(); return int(seen.Load()) }
}

// demand is callers who ask for tokens of a keyset at a steady rate, whether or not
// they get any.
type demand struct {
	keyset  string
	callers sync.WaitGroup
	end     context.CancelFunc

	mu      sync.Mutex
	answers []answer
}

// answer is what became of a request.
type answer struct {
	issued
	took time.Duration
	err  error
	hint string // when to come back
}

// startDemand begins to ask, half over Connect and half over gRPC.
func startDemand(t *testing.T, s *server, credential, keyset string, perSecond int) *demand {
	t.Helper()
	d := &demand{keyset: keyset}
	ctx, end := context.WithCancel(context.WithoutCancel(t.Context()))
	d.end = end
	speak := []client{s.overConnect(t, credential), s.overGRPC(t, credential)}
	d.callers.Go(func() {
		start := time.Now()
		for n := 0; ctx.Err() == nil; n++ {
			wait := time.Until(start.Add(time.Duration(n) * time.Second / time.Duration(perSecond)))
			if wait < -100*time.Millisecond {
				start = start.Add(-wait) // the machine paused, and nobody makes up for it all at once
			}
			time.Sleep(wait)
			d.callers.Go(func() { d.ask(context.WithoutCancel(ctx), speak[n%len(speak)], fmt.Sprintf("zone-%d", n)) })
		}
	})
	t.Cleanup(func() { d.stop() })
	return d
}

func (d *demand) ask(ctx context.Context, c client, zone string) {
	ctx, cancel := context.WithTimeout(ctx, demandTime)
	defer cancel()
	a := answer{issued: issued{zone: zone, at: time.Now()}}
	resp, err := c.tokens.IssueZoneToken(ctx, &pb.IssueZoneTokenRequest{Keyset: d.keyset, Zone: zone, ValidFor: durationpb.New(time.Hour)})
	a.took, a.err = time.Since(a.at), err
	a.token, a.jti, a.hint = resp.GetToken(), resp.GetJti(), hintIn(err)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.answers = append(d.answers, a)
}

// hintIn returns when an error says to come back, if it says so in both ways.
func hintIn(err error) string {
	e, ok := errors.AsType[*connect.Error](err)
	if !ok {
		return ""
	}
	seconds, wrong := strconv.Atoi(e.Meta().Get("Retry-After"))
	for _, detail := range e.Details() {
		v, err := detail.Value()
		info, ok := v.(*errdetails.RetryInfo)
		if err == nil && ok && wrong == nil && seconds > 0 && info.GetRetryDelay().AsDuration() > 0 {
			return fmt.Sprintf("%d s, %s", seconds, info.GetRetryDelay().AsDuration())
		}
	}
	return ""
}

// stop lets requests under way come to their end, and returns all answers.
func (d *demand) stop() []answer {
	d.end()
	d.callers.Wait()
	return d.answers
}

func (d *demand) tokens() (tokens []issued) {
	for _, a := range d.answers {
		if a.err == nil {
			tokens = append(tokens, a.issued)
		}
	}
	return tokens
}

// lastFailure returns when the last request was made that failed.
func (d *demand) lastFailure() (at time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, a := range d.answers {
		if a.err != nil && a.at.After(at) {
			at = a.at
		}
	}
	return at
}

// served counts what was asked for in a time, and what was issued of it.
func (d *demand) served(from, until time.Time) (got, asked int) {
	for _, a := range d.answers {
		if a.at.Before(from) || a.at.After(until) {
			continue
		}
		if asked++; a.err == nil {
			got++
		}
	}
	return got, asked
}

func (d *demand) summary(from, until time.Time) string {
	var issued, refused []time.Duration
	for _, a := range d.answers {
		if a.err == nil {
			issued = append(issued, a.took)
		} else {
			refused = append(refused, a.took)
		}
	}
	got, asked := d.served(from, until)
	return fmt.Sprintf("while throttled %d asked for, %d issued, %d refused; waits for a token: %s; for a refusal: %s",
		asked, got, asked-got, spread(issued), spread(refused))
}

// spread says how long half of all, nearly all and the longest took.
func spread(all []time.Duration) string {
	slices.Sort(all)
	n := len(all)
	if n == 0 {
		return "none"
	}
	return fmt.Sprintf("p50 %s, p99 %s, longest %s",
		all[n/2].Round(time.Millisecond), all[n*99/100].Round(time.Millisecond), all[n-1].Round(time.Millisecond))
}
