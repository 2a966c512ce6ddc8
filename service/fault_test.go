package service_test

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/uuid"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/service/ledger"
	"github.com/zonemint/zonemint/signer"
	"github.com/zonemint/zonemint/signer/signertest"
	"github.com/zonemint/zonemint/store"
)

// wantNothing checks that a failed call gave nothing away: no token, and no
// cause.
func wantNothing(t *testing.T, resp *pb.IssueZoneTokenResponse, err error, code connect.Code) {
	t.Helper()
	wantCode(t, err, code)
	if resp != nil || strings.Contains(fmt.Sprint(err), canary) || strings.Contains(fmt.Sprint(err), "injected") {
		t.Errorf("%v, %v", resp, err)
	}
}

func TestDatabaseDown(t *testing.T) {
	w := newWorld(t)
	now := &clock{}
	cfg := w.config()
	cfg.Now, cfg.StaleIfError = now.now, time.Minute
	s := w.start(t, cfg, zoneKeyset())
	must(s.issue(t, s.admin))
	w.engine.cut()
	for _, c := range s.wires(s.admin) {
		resp, err := c.tokens.IssueZoneToken(t.Context(), &pb.IssueZoneTokenRequest{Zone: "west", ValidFor: hour()})
		wantNothing(t, resp, err, connect.CodeUnavailable)
		_, err = c.callers.WhoAmI(t.Context(), &pb.WhoAmIRequest{})
		wantCode(t, err, connect.CodeUnavailable)
	}
	if got := s.private("/healthz/ready").Code; got != 200 {
		t.Errorf("within the lease: ready says %d", got)
	}

	now.set(31 * time.Second)
	resp, body := s.get(t, "/keysets/zone/jwks.json")
	if resp.StatusCode != 200 || resp.Header.Get("Cache-Control") != "public, max-age=0" || !strings.Contains(body, `"kid":"zone-1-`) {
		t.Errorf("after the lease: %d %v %s", resp.StatusCode, resp.Header, body)
	}
	if ready := s.private("/healthz/ready"); ready.Code != 503 || strings.Contains(ready.Body.String(), canary) {
		t.Errorf("after the lease: ready says %d %s", ready.Code, ready.Body)
	}
	if live := s.private("/healthz/live"); live.Code != 200 {
		t.Errorf("live says %d", live.Code)
	}
	issued, err := s.issue(t, s.admin)
	wantNothing(t, issued, err, connect.CodeUnavailable)

	now.set(0)
	w.engine.reconnect()
	if _, err := s.issue(t, s.admin); err != nil || s.private("/healthz/ready").Code != 200 {
		t.Errorf("back again: %v, ready says %d", err, s.private("/healthz/ready").Code)
	}
}

// A replica whose lease has run out does not sign, even if the database would
// take the row.
func TestNoLeaseNoToken(t *testing.T) {
	w := newWorld(t)
	now := &clock{}
	cfg := w.config()
	cfg.Now = now.now
	cfg.LeaseTTL = time.Hour
	s := w.start(t, cfg, zoneKeyset())
	w.engine.muffle()
	now.set(time.Hour + time.Second)
	resp, err := s.issue(t, s.apiTokenFor(t, 48*time.Hour))
	wantNothing(t, resp, err, connect.CodeUnavailable)
	if !strings.Contains(fmt.Sprint(err), "lost touch") {
		t.Error(err)
	}
}

// A replica whose lease runs out while it makes a key gives up, and does not tell
// the caller that it was the caller who left.
func TestNoLeaseNoKey(t *testing.T) {
	w := newWorld(t)
	fake := signertest.NewFake(t, signertest.FakeOptions{})
	w.backends["local"] = fake
	cfg := w.config()
	cfg.LeaseTTL = 600 * time.Millisecond
	s := w.start(t, cfg)
	fake.Inject(signertest.Fault{Op: signertest.OpCreate, Times: 1, Delay: time.Hour})
	go func() { // a lease that runs out before is another matter
		for fake.Calls(signertest.OpCreate) == 0 && t.Context().Err() == nil {
			time.Sleep(time.Millisecond)
		}
		w.engine.muffle()
	}()
	_, err := s.as(s.admin).keys.CreateKeyset(t.Context(), &pb.CreateKeysetRequest{Keyset: zoneKeyset()})
	wantCode(t, err, connect.CodeUnavailable)
	if !strings.Contains(fmt.Sprint(err), "lost touch") {
		t.Error(err)
	}
}

func TestTheLeaseIsRenewed(t *testing.T) {
	w := newWorld(t)
	cfg := w.config()
	cfg.LeaseTTL = 600 * time.Millisecond
	s := w.start(t, cfg, zoneKeyset())
	time.Sleep(700 * time.Millisecond)
	s.mint(t, time.Hour)
	w.engine.cut()
	eventually(t, "the lease runs out", func() bool { return s.private("/healthz/ready").Code == 503 })
	w.engine.reconnect()
	eventually(t, "it comes back", func() bool { return s.private("/healthz/ready").Code == 200 })
	// Each turn is logged once: the two messages alternate. Where the machine stood
	// still there are more turns than one.
	message := regexp.MustCompile(`"msg":"(lost|back in) touch with the database"`)
	var said [][]string
	eventually(t, "it says that it is back", func() bool {
		said = message.FindAllStringSubmatch(w.log.String(), -1)
		return len(said) > 1 && said[len(said)-1][1] == "back in"
	})
	for i, m := range said {
		if want := []string{"lost", "back in"}[i%2]; m[1] != want {
			t.Errorf("message %d says %q, want %q", i, m[1], want)
		}
	}
}

// A replica whose heartbeats arrive, and that cannot load a ring that has changed,
// must not vouch for the old one: rotations wait for its lease, and then for what
// verifiers were told during it.
func TestTheLeaseNeedsTheRing(t *testing.T) {
	w := newWorld(t)
	cfg := w.config()
	cfg.LeaseTTL = 1200 * time.Millisecond
	s := w.start(t, cfg, zoneKeyset())
	w.engine.blind()
	time.Sleep(cfg.LeaseTTL + 300*time.Millisecond)
	eventually(t, "it is ready, the ring has not changed", func() bool { return s.private("/healthz/ready").Code == 200 })
	if _, _, err := w.db.CreateKeyset(t.Context(), store.Keyset{Name: "edge", Profile: store.ProfileZone, Algorithm: "ES256",
		Backend: "local", Distribution: store.DistributionJWKS}, nil, store.Actor{Name: "cli/test"}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is not ready", func() bool { return s.private("/healthz/ready").Code == 503 })
	if resp, _ := s.get(t, "/keysets/zone/jwks.json"); resp.Header.Get("Cache-Control") != "public, max-age=0" {
		t.Errorf("it serves the old ring with %q", resp.Header.Get("Cache-Control"))
	}
	w.engine.reconnect()
	eventually(t, "it is ready again", func() bool { return s.private("/healthz/ready").Code == 200 })
}

func TestLedgerFails(t *testing.T) {
	w := newWorld(t)
	fake := signertest.NewFake(t, signertest.FakeOptions{})
	w.backends["local"] = fake
	s := w.start(t, w.config(), zoneKeyset())
	for cause, code := range map[error]connect.Code{
		store.ErrUnavailable: connect.CodeUnavailable, store.ErrUnknownOutcome: connect.CodeUnavailable,
		store.ErrFull: connect.CodeResourceExhausted, store.ErrRejected: connect.CodeInvalidArgument, errors.New("x"): connect.CodeInternal,
	} {
		err := fmt.Errorf("%w: %s", cause, canary)
		w.engine.ledger.Store(&err)
		signed := fake.Calls(signertest.OpSign)
		resp, ierr := s.issue(t, s.admin)
		wantNothing(t, resp, ierr, code)
		if fake.Calls(signertest.OpSign) != signed+1 {
			t.Errorf("%v: no signature was made", cause)
		}
		batch := must(s.as(s.admin).tokens.IssueTokens(t.Context(), &pb.IssueTokensRequest{Items: []*pb.IssueTokensItem{zoneItem("a"), zoneItem("b")}}))
		for _, r := range batch.GetResults() {
			if r.GetToken() != nil || r.GetError().GetCode() != code.String() || strings.Contains(r.String(), canary) {
				t.Errorf("%v: an item got %v", cause, r)
			}
		}
	}
	w.engine.reconnect()
	if _, err := s.issue(t, s.admin); err != nil {
		t.Error(err)
	}
}

func TestBackendFails(t *testing.T) {
	w := newWorld(t)
	fake := signertest.NewFake(t, signertest.FakeOptions{})
	w.backends["local"] = fake
	rec := &recorder{Store: w.db}
	cfg := w.config()
	cfg.Recorder = rec
	s := w.start(t, cfg, zoneKeyset())
	for code, want := range map[signer.Code]connect.Code{
		signer.Unavailable: connect.CodeUnavailable, signer.Throttled: connect.CodeResourceExhausted,
		signer.NotFound: connect.CodeFailedPrecondition, signer.Denied: connect.CodeFailedPrecondition, signer.Unknown: connect.CodeInternal,
	} {
		fake.Inject(signertest.Fault{Op: signertest.OpSign, Err: signertest.Fail(code)})
		resp, err := s.issue(t, s.admin)
		wantNothing(t, resp, err, want)
		fake.Heal()
		// The row is there and binds nobody.
		if row, err := s.db.Issuance(t.Context(), rec.lastJTI()); err != nil || row.Subject != "west" {
			t.Errorf("%s: the row is %+v, %v", code, row, err)
		}
	}
	fake.Inject(signertest.Fault{Op: signertest.OpSign, Times: 1, Mangle: true})
	resp, err := s.issue(t, s.admin)
	wantNothing(t, resp, err, connect.CodeInternal)

	// One item of three.
	fake.Inject(signertest.Fault{Op: signertest.OpSign, Times: 1, Err: signertest.Fail(signer.Unavailable)})
	batch := must(s.as(s.admin).tokens.IssueTokens(t.Context(), &pb.IssueTokensRequest{Items: []*pb.IssueTokensItem{zoneItem("a"), zoneItem("b"), zoneItem("c")}}))
	failed := 0
	for _, r := range batch.GetResults() {
		if r.GetError().GetCode() == "unavailable" {
			failed++
		}
	}
	if failed != 1 {
		t.Errorf("%d of three items failed: %v", failed, batch)
	}
	if resp, body := s.get(t, "/keysets/zone/jwks.json"); resp.StatusCode != 200 || !strings.Contains(body, "zone-2-") {
		t.Errorf("JWK set: %d %s", resp.StatusCode, body)
	}
}

// recorder is a ledger that refuses keys, and remembers what it was given.
type recorder struct {
	ledger.Store
	refuse atomic.Int64 // so many more transactions
	calls  atomic.Int64
	last   atomic.Pointer[uuid.UUID]
}

func (r *recorder) Record(ctx context.Context, at store.Link, rows []store.Issuance) (store.Link, store.Refused, error) {
	r.calls.Add(1)
	jti := rows[0].JTI
	r.last.Store(&jti)
	if r.refuse.Add(-1) >= 0 {
		return at, store.Refused{Keys: []uuid.UUID{rows[0].KeyID}}, nil
	}
	return r.Store.Record(ctx, at, rows)
}

func (r *recorder) lastJTI() uuid.UUID { return *r.last.Load() }

func TestKeyRefused(t *testing.T) {
	w := newWorld(t)
	rec := &recorder{Store: w.db}
	cfg := w.config()
	cfg.Recorder = rec
	s := w.start(t, cfg, zoneKeyset())
	batch := &pb.IssueTokensRequest{Items: []*pb.IssueTokensItem{zoneItem("a"), zoneItem("b")}}

	// Another replica changes the ring, this one hears of it by the refusal.
	other := w.start(t, w.config(), &pb.Keyset{Name: "zone/eu", Profile: pb.Profile_PROFILE_ZONE, Algorithm: "ES256"})
	if _, err := other.issue(t, w.admin); err != nil {
		t.Fatal(err)
	}
	rec.refuse.Store(1)
	if resp, err := s.issue(t, s.admin); err != nil || resp.GetToken() == "" || rec.calls.Load() != 2 {
		t.Errorf("refused once: %v after %d transactions", err, rec.calls.Load())
	}
	if resp, _ := s.get(t, "/keysets/zone/eu/jwks.json"); resp.StatusCode != 200 {
		t.Error("the ring was not refreshed")
	}
	rec.refuse.Store(1)
	for i, r := range must(s.as(s.admin).tokens.IssueTokens(t.Context(), batch)).GetResults() {
		if r.GetToken() == nil {
			t.Errorf("refused once: item %d: %v", i, r.GetError())
		}
	}
}

func TestKeyRefusedForEver(t *testing.T) {
	w := newWorld(t)
	rec := &recorder{Store: w.db}
	cfg := w.config()
	cfg.Recorder = rec
	s := w.start(t, cfg, zoneKeyset())
	batch := &pb.IssueTokensRequest{Items: []*pb.IssueTokensItem{zoneItem("a"), zoneItem("b")}}
	must(s.issue(t, s.admin))
	rec.refuse.Store(1000)
	rec.calls.Store(0)
	resp, err := s.issue(t, s.admin)
	wantNothing(t, resp, err, connect.CodeUnavailable)
	if rec.calls.Load() != 3 {
		t.Errorf("%d transactions, want two retries", rec.calls.Load())
	}
	for i, r := range must(s.as(s.admin).tokens.IssueTokens(t.Context(), batch)).GetResults() {
		if r.GetError().GetCode() != "unavailable" {
			t.Errorf("refused for ever: item %d: %v", i, r)
		}
	}
	// With the database down there is no new ring either.
	rec.refuse.Store(1)
	cut := fmt.Errorf("%w: %s", store.ErrUnavailable, canary)
	w.engine.fail.Store(&cut)
	resp, err = s.issue(t, s.admin)
	wantNothing(t, resp, err, connect.CodeUnavailable)
}

// A caller that leaves gets nothing and aborts nothing.
func TestCallerLeaves(t *testing.T) {
	w := newWorld(t)
	fake := signertest.NewFake(t, signertest.FakeOptions{})
	w.backends["local"] = fake
	s := w.start(t, w.config(), zoneKeyset())
	fake.Inject(signertest.Fault{Op: signertest.OpSign, Times: 1, Delay: time.Hour})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	signed := fake.Calls(signertest.OpSign)
	go func() {
		for fake.Calls(signertest.OpSign) == signed && t.Context().Err() == nil {
			time.Sleep(time.Millisecond)
		}
		cancel()
	}()
	start := time.Now()
	resp, err := s.as(s.admin).tokens.IssueZoneToken(ctx, &pb.IssueZoneTokenRequest{Zone: "west", ValidFor: hour()})
	if resp != nil || err == nil || time.Since(start) > patience {
		t.Errorf("%v after %s", err, time.Since(start))
	}
	if _, err := s.issue(t, s.admin); err != nil {
		t.Error(err)
	}
}

func TestTokensAreStampedByTheDatabasesClock(t *testing.T) {
	for _, off := range []time.Duration{30 * time.Second, -30 * time.Second} {
		w := newWorld(t)
		now := &clock{}
		now.set(off)
		cfg := w.config()
		cfg.Now = now.now
		s := w.start(t, cfg, zoneKeyset())
		before := time.Now()
		resp := must(s.issue(t, s.admin))
		after := time.Now()
		row := must(s.db.Issuance(t.Context(), uuid.MustParse(resp.GetJti())))
		if row.IssuedAt.Before(before.Add(-2*time.Second)) || row.IssuedAt.After(after.Add(2*time.Second)) {
			t.Errorf("clock wrong by %s: stamped %s, between %s and %s", off, row.IssuedAt, before, after)
		}
		if exp := resp.GetExpiresAt().AsTime(); exp.Before(before.Add(time.Hour-3*time.Second)) || exp.After(after.Add(time.Hour)) {
			t.Errorf("clock wrong by %s: expires at %s", off, exp)
		}
		if ms := int64(row.JTI[0])<<40 | int64(row.JTI[1])<<32 | int64(row.JTI[2])<<24 | int64(row.JTI[3])<<16 | int64(row.JTI[4])<<8 | int64(row.JTI[5]); ms != row.IssuedAt.UnixMilli() {
			t.Errorf("the jti is of %d, the token of %d", ms, row.IssuedAt.UnixMilli())
		}
		verified, err := s.as(s.admin).tokens.VerifyToken(t.Context(), &pb.VerifyTokenRequest{Token: resp.GetToken()})
		if err != nil || !verified.GetValid() {
			t.Errorf("%v, %v", verified, err)
		}
	}
}
