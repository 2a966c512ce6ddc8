package service_test

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/service"
	"github.com/zonemint/zonemint/token"
)

// sharpKeyset is a keyset whose tokens are not dated back: verifiers find out if
// a clock is a second ahead.
func sharpKeyset() *pb.Keyset {
	ks := zoneKeyset()
	ks.Backdate = durationpb.New(0)
	return ks
}

// skewed is a configuration of a replica whose clock is ahead, or behind.
func (w *world) skewed(ahead time.Duration) (service.Config, *clock) {
	c := &clock{}
	c.set(ahead)
	cfg := w.config()
	cfg.Now = c.now
	return cfg, c
}

// strict is a verifier that goes by the true time, with no leeway.
func (s *server) strict(t *testing.T) *token.Verifier[token.ZoneClaims] {
	t.Helper()
	_, body := s.get(t, "/keysets/zone/jwks.json")
	keys := must(token.ParseKeySet([]byte(body)))
	return must(token.NewVerifier[token.ZoneClaims](keys, token.Options{Now: s.dbClock.now}))
}

func TestReplicasWhoseClocksDiffer(t *testing.T) {
	w := newWorld(t)
	var all []*server
	for _, ahead := range []time.Duration{-30 * time.Second, 0, 30 * time.Second} {
		cfg, _ := w.skewed(ahead)
		all = append(all, w.start(t, cfg, sharpKeyset()))
	}
	verifier := all[0].strict(t)
	for end := time.Now().Add(1200 * time.Millisecond); time.Now().Before(end); { // over the turn of a second
		for i, s := range all {
			resp, err := s.issue(t, w.admin)
			if err != nil {
				t.Fatalf("replica %d: %v", i, err)
			}
			if _, err := verifier.Verify(t.Context(), resp.GetToken()); err != nil {
				t.Fatalf("replica %d issued what is not good: %v", i, err)
			}
		}
	}
	for i, want := range []float64{30, 0, -30} {
		if got := all[i].gauge(t, "zonemint_clock_offset_seconds"); math.Abs(got-want) > 1 {
			t.Errorf("replica %d reports an offset of %vs, want %vs", i, got, want)
		}
		if got := all[i].gauge(t, "zonemint_clock_uncertainty_seconds"); got <= 0 || got > 1 {
			t.Errorf("replica %d reports an uncertainty of %vs", i, got)
		}
	}
}

func (s *server) gauge(t testing.TB, name string) float64 {
	t.Helper()
	_, rest, _ := strings.Cut(s.private("/metrics").Body.String(), "\n"+name+" ")
	text, _, _ := strings.Cut(rest, "\n")
	v, err := strconv.ParseFloat(text, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return v
}

func TestReplicaWhoseClockIsWrong(t *testing.T) {
	w := newWorld(t)
	w.start(t, w.config(), sharpKeyset())
	for ahead, reason := range map[time.Duration]string{
		2 * time.Minute:  "this replica's clock is 2m0s ahead of the database's, more than the 1m0s allowed; set the clock (NTP)",
		-2 * time.Minute: "this replica's clock is 2m0s behind the database's, more than the 1m0s allowed; set the clock (NTP)",
	} {
		cfg, clock := w.skewed(ahead)
		cfg.LeaseTTL = 6 * time.Second
		s := w.start(t, cfg)
		resp, err := s.issue(t, w.admin)
		wantNothing(t, resp, err, connect.CodeUnavailable)
		if !strings.Contains(fmt.Sprint(err), reason) {
			t.Errorf("%v, want %s", err, reason)
		}
		if ready := s.private("/healthz/ready"); ready.Code != 503 || ready.Body.String() != reason+"\n" {
			t.Errorf("ready says %d %s", ready.Code, ready.Body)
		}
		jwks, _ := s.get(t, "/keysets/zone/jwks.json")
		if cc := jwks.Header.Get("Cache-Control"); jwks.StatusCode != 200 || strings.HasPrefix(cc, "public, max-age=0") {
			t.Errorf("JWK set: %d %s", jwks.StatusCode, cc)
		}
		clock.set(0)
		eventually(t, "it signs", func() bool { _, err := s.issue(t, w.admin); return err == nil })
	}
	for _, text := range []string{"clock is no good, nothing is signed", "clock is good again", "this replica's clock jumped"} {
		count := func() int { return strings.Count(w.log.String(), `"msg":"`+text) }
		eventually(t, "it is logged: "+text, func() bool { return count() > 1 })
		if n := count(); n != 2 {
			t.Errorf("%q is logged %d times by two replicas", text, n)
		}
	}
}

func TestClockThatJumps(t *testing.T) {
	w := newWorld(t)
	cfg, clock := w.skewed(0)
	cfg.LeaseTTL = 5 * time.Minute
	s := w.start(t, cfg, sharpKeyset())
	must(s.issue(t, w.admin))
	w.engine.muffle()
	time.Sleep(50 * time.Millisecond) // for the answer to a heartbeat that was under way
	for ahead, reason := range map[time.Duration]string{
		30 * time.Second: "this replica's clock jumped by 30s; it signs again after the next heartbeat", -30 * time.Second: "jumped by -30s",
	} {
		clock.set(ahead)
		resp, err := s.issue(t, w.admin)
		wantNothing(t, resp, err, connect.CodeUnavailable)
		if !strings.Contains(fmt.Sprint(err), reason) || s.private("/healthz/ready").Code != 503 {
			t.Errorf("%v, want %s", err, reason)
		}
	}
	clock.set(0)
	must(s.issue(t, w.admin))
}

// A clock that jumps to and fro while heartbeats come and go: whatever is issued
// meanwhile is good at once.
func TestClockThatGoesOnJumping(t *testing.T) {
	w := newWorld(t)
	cfg, clock := w.skewed(0)
	cfg.LeaseTTL = 900 * time.Millisecond
	s := w.start(t, cfg, sharpKeyset())
	verifier := s.strict(t)
	issued, refused := 0, 0
	start := time.Now()
	for time.Since(start) < 3*time.Second || (issued == 0 || refused == 0) && time.Since(start) < patience {
		// Heartbeats come every 150ms, the clock moves every 400ms.
		clock.set(time.Duration(time.Since(start).Milliseconds()/400%3-1) * 30 * time.Second)
		resp, err := s.issue(t, w.admin)
		if err != nil {
			wantNothing(t, resp, err, connect.CodeUnavailable)
			refused++
			continue
		}
		issued++
		if _, err := verifier.Verify(t.Context(), resp.GetToken()); err != nil {
			t.Fatalf("with a clock %s ahead: %v", time.Duration(clock.ahead.Load()), err)
		}
	}
	if issued == 0 || refused == 0 {
		t.Errorf("%d issued, %d refused: the clock did not jump", issued, refused)
	}
}
