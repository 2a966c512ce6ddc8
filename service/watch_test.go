package service_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/uuid"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	v1 "github.com/zonemint/zonemint/proto/zonemint/v1/zonemintv1connect"
	"github.com/zonemint/zonemint/service"
	"github.com/zonemint/zonemint/store"
)

// lively makes signs of life come fast.
func lively(c service.Config) service.Config {
	c.SignOfLife, c.FeedInterval = 50*time.Millisecond, 20*time.Millisecond
	return c
}

// feedReader is what a reader of the feed knows, by the rules of its schema.
type feedReader struct {
	epoch   string
	seq     int64
	revoked map[string]int64
}

func (r *feedReader) apply(t testing.TB, p *pb.WatchRevocationsResponse) {
	t.Helper()
	if p.GetReset_() || r.revoked == nil {
		r.revoked = map[string]int64{}
	}
	if !p.GetReset_() && (p.GetEpoch() != r.epoch || p.GetSeq() < r.seq) {
		t.Errorf("from %s/%d to %s/%d without a reset", r.epoch, r.seq, p.GetEpoch(), p.GetSeq())
	}
	for _, e := range p.GetRevoked() {
		r.revoked[e.GetJti()] = e.GetExp()
	}
	for _, jti := range p.GetLifted() {
		delete(r.revoked, jti)
	}
	r.epoch, r.seq = p.GetEpoch(), p.GetSeq()
}

func (r *feedReader) request(keyset string) *pb.WatchRevocationsRequest {
	return &pb.WatchRevocationsRequest{Keyset: keyset, Epoch: r.epoch, Since: r.seq}
}

// revokeIDs revokes token IDs of tokens that nobody has seen, for an hour.
func (w *world) revokeIDs(t testing.TB, keyset string, jtis ...string) {
	t.Helper()
	items := make([]store.Revoke, len(jtis))
	for i, jti := range jtis {
		items[i] = store.Revoke{JTI: jti, ExpiresAt: time.Now().Add(time.Hour).Truncate(time.Second)}
	}
	if _, err := w.db.Revoke(t.Context(), w.keysetID(t, keyset), items, "test", store.Actor{Name: "cli/test"}); err != nil {
		t.Fatal(err)
	}
}

func (w *world) lift(t testing.TB, keyset, jti string) {
	t.Helper()
	if _, err := w.db.LiftRevocation(t.Context(), w.keysetID(t, keyset), jti, "test", store.Actor{Name: "cli/test"}); err != nil {
		t.Fatal(err)
	}
}

func TestWatch(t *testing.T) {
	w := newWorld(t)
	s := w.start(t, lively(w.config()), zoneAnd("other")...)
	s.revokeIDs(t, "zone", "a", "b")
	s.lift(t, "zone", "b")
	for i, c := range s.wires(s.admin) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		stream, err := c.revocations.WatchRevocations(ctx, &pb.WatchRevocationsRequest{Keyset: "zone"})
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		var r feedReader
		next := func() *pb.WatchRevocationsResponse {
			if !stream.Receive() {
				t.Fatalf("%s: %v", c.name, stream.Err())
			}
			r.apply(t, stream.Msg())
			return stream.Msg()
		}
		if first := next(); !first.GetReset_() || first.GetMore() || r.revoked["a"] == 0 || len(first.GetLifted()) != 0 {
			t.Errorf("%s: %v", c.name, first)
		}
		if stream.ResponseHeader().Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %v", c.name, stream.ResponseHeader())
		}
		for range 2 { // signs of life
			at := r.seq
			if p := next(); len(p.GetRevoked())+len(p.GetLifted()) != 0 || p.GetReset_() || p.GetSeq() != at {
				t.Errorf("%s: %v", c.name, p)
			}
		}
		jti := fmt.Sprint("new-", i)
		s.revokeIDs(t, "other", jti+"-other")
		s.revokeIDs(t, "zone", jti)
		for r.revoked[jti] == 0 {
			next()
		}
		s.lift(t, "zone", jti)
		for r.revoked[jti] != 0 {
			next()
		}
		if len(r.revoked) != 1 || r.revoked["a"] == 0 {
			t.Errorf("%s: %v", c.name, r.revoked)
		}
		cancel()
		_ = stream.Close()
	}
	eventually(t, "the streams are counted and gone", func() bool {
		body := s.private("/metrics").Body.String()
		return strings.Contains(body, `zonemint_streams{method="/zonemint.v1.RevocationService/WatchRevocations"} 0`) &&
			strings.Contains(body, `zonemint_streams_ended_total{code="canceled",method="/zonemint.v1.RevocationService/WatchRevocations"} 5`)
	})
}

// The revocations of this replica are with its streams at once, not at the next
// tick or sign of life.
func TestWatchIsWoken(t *testing.T) {
	w := newWorld(t)
	cfg := w.config()
	cfg.FeedInterval, cfg.SignOfLife = time.Hour, time.Hour
	s := w.start(t, cfg, zoneKeyset())
	issued := s.issueFor(t, "", "west")
	stream := must(s.as(s.admin).revocations.WatchRevocations(t.Context(), &pb.WatchRevocationsRequest{Keyset: "zone"}))
	defer func() { _ = stream.Close() }()
	stream.Receive()
	must(s.as(s.admin).revocations.RevokeToken(t.Context(), &pb.RevokeTokenRequest{Jti: issued.GetJti()}))
	start := time.Now()
	if !stream.Receive() || len(stream.Msg().GetRevoked()) != 1 || time.Since(start) > patience {
		t.Errorf("after %s: %v, %v", time.Since(start), stream.Msg(), stream.Err())
	}
	if e := stream.Msg().GetRevoked()[0]; e.GetJti() != issued.GetJti() || e.GetExp() != issued.GetExpiresAt().GetSeconds() {
		t.Errorf("%v, was issued as %v", e, issued)
	}
}

func TestWatchFromAPosition(t *testing.T) {
	w := newWorld(t)
	s := w.start(t, lively(w.config()), zoneKeyset())
	var all []string
	for i := range 2500 {
		all = append(all, fmt.Sprintf("jti-%04d", i))
	}
	s.revokeIDs(t, "zone", all...)
	head := must(w.db.FeedHeads(t.Context()))[s.keysetID(t, "zone")]
	first := func(epoch string, since int64) (*pb.WatchRevocationsResponse, feedReader) {
		stream := must(s.as(s.admin).revocations.WatchRevocations(t.Context(), &pb.WatchRevocationsRequest{Keyset: "zone", Epoch: epoch, Since: since}))
		defer func() { _ = stream.Close() }()
		var page *pb.WatchRevocationsResponse
		r := feedReader{epoch: epoch, seq: since}
		for {
			if !stream.Receive() {
				t.Fatal(stream.Err())
			}
			if page == nil {
				page = stream.Msg()
			}
			r.apply(t, stream.Msg())
			if !stream.Msg().GetMore() {
				return page, r
			}
		}
	}
	for _, c := range []struct {
		name, epoch    string
		since          int64
		reset          bool
		entries, known int
	}{
		{"nothing", "", 0, true, 1000, 2500},
		{"nothing but a number", "", 7, true, 1000, 2500},
		{"another epoch", uuid.NewString(), 7, true, 1000, 2500},
		{"in the middle", head.Epoch.String(), 2000, false, 500, 500},
		{"at the head", head.Epoch.String(), head.Seq, false, 0, 0},
		{"beyond the head", head.Epoch.String(), head.Seq + 1, true, 1000, 2500},
	} {
		p, r := first(c.epoch, c.since)
		if p.GetReset_() != c.reset || len(p.GetRevoked()) != c.entries || len(r.revoked) != c.known || r.seq != head.Seq || p.GetMore() != (c.entries == 1000) {
			t.Errorf("%s: reset %t, %d entries, then %d known at %d", c.name, p.GetReset_(), len(p.GetRevoked()), len(r.revoked), r.seq)
		}
	}
}

func TestWatchRefuses(t *testing.T) {
	w := newWorld(t)
	s := w.start(t, lively(w.config()), zoneAnd("other")...)
	narrow := s.apiToken(t, store.APIToken{Name: "v", Roles: []string{"verifier"}, Keysets: []string{"other"}})
	issuer := s.apiToken(t, store.APIToken{Name: "i", Roles: []string{"issuer"}})
	for _, c := range []struct {
		token string
		req   *pb.WatchRevocationsRequest
		want  connect.Code
	}{
		{"", &pb.WatchRevocationsRequest{Keyset: "zone"}, connect.CodeUnauthenticated},
		{issuer, &pb.WatchRevocationsRequest{Keyset: "zone"}, connect.CodePermissionDenied},
		{narrow, &pb.WatchRevocationsRequest{Keyset: "zone"}, connect.CodePermissionDenied},
		{narrow, &pb.WatchRevocationsRequest{Keyset: "nosuch"}, connect.CodePermissionDenied},
		{s.admin, &pb.WatchRevocationsRequest{Keyset: "nosuch"}, connect.CodeNotFound},
		{s.admin, &pb.WatchRevocationsRequest{}, connect.CodeInvalidArgument},
		{s.admin, &pb.WatchRevocationsRequest{Keyset: "zone", Since: -1}, connect.CodeInvalidArgument},
		{s.admin, &pb.WatchRevocationsRequest{Keyset: "zone", Epoch: "x"}, connect.CodeInvalidArgument},
	} {
		for _, wire := range s.wires(c.token) {
			stream, err := wire.revocations.WatchRevocations(t.Context(), c.req)
			if err == nil {
				if stream.Receive() {
					t.Errorf("%s, %v: %v", wire.name, c.req, stream.Msg())
				}
				err = stream.Err()
				_ = stream.Close()
			}
			if connect.CodeOf(err) != c.want {
				t.Errorf("%s, %v: %v, want %s", wire.name, c.req, err, c.want)
			}
			if e, ok := errors.AsType[*connect.Error](err); !ok || e.Meta().Get("X-Request-Id") == "" {
				t.Errorf("%s, %v: no request ID in %v", wire.name, c.req, err)
			}
		}
	}
}

// A body that is no message is Connect's business, and no internal error.
func TestWatchUndecodable(t *testing.T) {
	s := newTestServer(t)
	h := http.Header{"Authorization": {"Bearer " + s.admin}, "Content-Type": {"application/connect+json"}}
	resp, body := s.do(t, "POST", v1.RevocationServiceWatchRevocationsProcedure, "\x00\x00\x00\x00\x01x", h)
	if resp.StatusCode != 200 || !strings.Contains(body, `"code":"invalid_argument"`) {
		t.Errorf("%d %q", resp.StatusCode, body)
	}
}

// wantEnd reads a stream to its end.
func wantEnd(t testing.TB, stream *connect.ServerStreamForClient[pb.WatchRevocationsResponse], code connect.Code) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for stream.Receive() {
		}
	}()
	select {
	case <-done:
		wantCode(t, stream.Err(), code)
	case <-time.After(patience):
		t.Error("the stream does not end")
	}
	_ = stream.Close()
}

func (s *server) watch(t testing.TB, c wire) *connect.ServerStreamForClient[pb.WatchRevocationsResponse] {
	t.Helper()
	stream := must(c.revocations.WatchRevocations(t.Context(), &pb.WatchRevocationsRequest{Keyset: "zone"}))
	if !stream.Receive() {
		t.Fatal(stream.Err())
	}
	return stream
}

func TestStreamsEndWithTheReplica(t *testing.T) {
	w := newWorld(t)
	s := w.start(t, lively(w.config()), zoneKeyset())
	var streams []*connect.ServerStreamForClient[pb.WatchRevocationsResponse]
	for _, c := range s.wires(s.admin) {
		streams = append(streams, s.watch(t, c))
	}
	s.EndStreams()
	s.EndStreams()
	for _, stream := range streams {
		wantEnd(t, stream, connect.CodeUnavailable)
	}
	wantEnd(t, must(s.as(s.admin).revocations.WatchRevocations(t.Context(), &pb.WatchRevocationsRequest{Keyset: "zone"})), connect.CodeUnavailable)
	if _, err := s.issue(t, s.admin); err != nil {
		t.Errorf("calls go on: %v", err)
	}
	if strings.Contains(w.log.String(), "request failed") {
		t.Error("the log calls the end of a stream a failure")
	}
}

func TestStreamsEndWithRun(t *testing.T) {
	w := newWorld(t)
	first := must(service.New(t.Context(), lively(w.config())))
	if err := first.EnsureKeyset(t.Context(), zoneKeyset()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- first.Run(ctx) }()
	s := &server{world: w, Service: first}
	s.listen(t)
	stream := s.watch(t, s.as(s.admin))
	cancel()
	wantEnd(t, stream, connect.CodeUnavailable)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestStreamEndsWithItsAPIToken(t *testing.T) {
	w := newWorld(t)
	w.start(t, w.config(), zoneKeyset())
	s := w.start(t, lively(w.config()))
	for i := range s.wires("") {
		token := w.apiToken(t, store.APIToken{Name: "v", Roles: []string{"verifier"}})
		stream := s.watch(t, s.wires(token)[i])
		who := must(s.as(token).callers.WhoAmI(t.Context(), &pb.WhoAmIRequest{}))
		// Elsewhere: this replica's own memory of the API token is not told.
		if _, err := w.db.RevokeAPIToken(t.Context(), uuid.MustParse(who.GetApiToken().GetId()), store.Actor{Name: "cli/test"}); err != nil {
			t.Fatal(err)
		}
		wantEnd(t, stream, connect.CodeUnauthenticated)
	}
	// One that expires. It has to live for as long as it takes to open a stream.
	for life := 1500 * time.Millisecond; ; life *= 2 {
		stream := must(s.as(w.apiTokenFor(t, life)).revocations.WatchRevocations(t.Context(), &pb.WatchRevocationsRequest{Keyset: "zone"}))
		opened := stream.Receive()
		wantEnd(t, stream, connect.CodeUnauthenticated)
		if opened || life > patience {
			break
		}
	}
}

// Without the database a stream says nothing rather than that all is well, and
// ends when the replica may know less than another one.
func TestStreamWithoutDatabase(t *testing.T) {
	w := newWorld(t)
	cfg := lively(w.config())
	cfg.LeaseTTL = 4 * time.Second
	s := w.start(t, cfg, zoneKeyset())
	stream := s.watch(t, s.as(s.admin))
	s.engine.cut()
	cut := time.Now()
	var last time.Time
	for stream.Receive() {
		last = time.Now()
	}
	wantCode(t, stream.Err(), connect.CodeUnavailable)
	if since := last.Sub(cut); since > 2*time.Second {
		t.Errorf("a sign of life %s after the database was gone", since)
	}
	if lasted := time.Since(cut); lasted < time.Second {
		t.Errorf("ended after %s", lasted)
	}
	if strings.Contains(stream.Err().Error(), canary) {
		t.Error(stream.Err())
	}
	s.engine.reconnect()
	eventually(t, "streams again", func() bool {
		stream, err := s.as(s.admin).revocations.WatchRevocations(t.Context(), &pb.WatchRevocationsRequest{Keyset: "zone"})
		if err != nil {
			return false
		}
		defer func() { _ = stream.Close() }()
		return stream.Receive()
	})
}

// A short outage: the stream goes on and nothing is missed.
func TestStreamOutlivesAnOutage(t *testing.T) {
	w := newWorld(t)
	s := w.start(t, lively(w.config()), zoneKeyset())
	stream := s.watch(t, s.as(s.admin))
	defer func() { _ = stream.Close() }()
	s.engine.cut()
	time.Sleep(200 * time.Millisecond)
	s.engine.reconnect()
	s.revokeIDs(t, "zone", "after")
	for stream.Receive() {
		if len(stream.Msg().GetRevoked()) == 1 {
			return
		}
	}
	t.Error(stream.Err())
}

// Streams that are cut at random and resumed miss nothing of what is written
// meanwhile, on whichever replica they are resumed.
func TestResumedStreamsMissNothing(t *testing.T) {
	w := newWorld(t)
	servers := []*server{w.start(t, lively(w.config()), zoneKeyset()), w.start(t, lively(w.config()))}
	clients := append(servers[0].wires(w.admin), servers[1].wires(w.admin)...)
	const readers, writes = 8, 150
	known := make([]feedReader, readers)
	var end store.FeedPosition
	ended := make(chan struct{})
	var wg sync.WaitGroup
	for i := range known {
		wg.Go(func() { known[i].follow(t, clients, ended, &end) })
	}
	want := map[string]bool{}
	for i := range writes {
		jti := fmt.Sprint("jti-", rand.IntN(40))
		if want[jti] && rand.IntN(2) == 0 {
			w.lift(t, "zone", jti)
			delete(want, jti)
		} else {
			w.revokeIDs(t, "zone", jti)
			want[jti] = true
		}
		if i%10 == 0 {
			time.Sleep(20 * time.Millisecond)
		}
	}
	end = must(w.db.FeedHeads(t.Context()))[w.keysetID(t, "zone")]
	close(ended)
	wg.Wait()
	for i, r := range known {
		if len(r.revoked) != len(want) {
			t.Errorf("reader %d knows %d, want %d", i, len(r.revoked), len(want))
		}
		for jti := range want {
			if r.revoked[jti] == 0 {
				t.Errorf("reader %d missed %s", i, jti)
			}
		}
	}
}

// follow reads through streams that it cuts after a while, until it has read to
// the end. Where the machine is too slow for what they last, they last longer.
func (r *feedReader) follow(t *testing.T, clients []wire, ended <-chan struct{}, end *store.FeedPosition) {
	for late := 0; ; {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(5+late+rand.IntN(150))*time.Millisecond)
		stream, err := clients[rand.IntN(len(clients))].revocations.WatchRevocations(ctx, r.request("zone"))
		for err == nil && stream.Receive() {
			r.apply(t, stream.Msg())
		}
		if err == nil {
			_ = stream.Close()
		}
		cancel()
		select {
		case <-ended:
			if r.seq == end.Seq {
				return
			}
			late += 10
		default:
		}
	}
}

// The server's limits on requests are not for streams, whatever HTTP they use.
func TestStreamsOutliveTheServersLimits(t *testing.T) {
	w := newWorld(t)
	s := w.start(t, lively(w.config()), zoneKeyset())
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	srv := httptest.NewUnstartedServer(s.Handler())
	srv.Config.Protocols, srv.Config.ReadTimeout, srv.Config.WriteTimeout = &protocols, 300*time.Millisecond, 400*time.Millisecond
	srv.Start()
	defer srv.Close()
	limited := &server{world: w, url: srv.URL, client: s.client}
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, c := range limited.wires(s.admin) {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
			defer cancel()
			stream := opened(ctx, c)
			n := 1
			for start := time.Now(); n < 10 || time.Since(start) < 1500*time.Millisecond; n++ {
				if !stream.Receive() {
					t.Errorf("%s: %d pages in %s, then %v", c.name, n, time.Since(start), stream.Err())
					break
				}
			}
			_ = stream.Close()
		})
	}
}

// opened returns a stream that has begun, which the limits on requests may prevent
// where the machine stands still for longer.
func opened(ctx context.Context, c wire) *connect.ServerStreamForClient[pb.WatchRevocationsResponse] {
	for {
		stream, err := c.revocations.WatchRevocations(ctx, &pb.WatchRevocationsRequest{Keyset: "zone"})
		if err == nil && stream.Receive() || ctx.Err() != nil {
			return stream
		}
		if err == nil {
			_ = stream.Close()
		}
	}
}

func TestManyStreams(t *testing.T) {
	w := newWorld(t)
	s := w.start(t, w.config(), zoneKeyset())
	const many = 300
	var ready, done sync.WaitGroup
	var credential string
	for i := range many {
		if i%100 == 0 { // an API token may have no more
			credential = s.apiToken(t, store.APIToken{Name: "v", Roles: []string{"verifier"}})
		}
		as := s.as(credential)
		ready.Add(1)
		done.Go(func() {
			stream, err := as.revocations.WatchRevocations(t.Context(), &pb.WatchRevocationsRequest{Keyset: "zone"})
			if err != nil {
				ready.Done()
				t.Error(err)
				return
			}
			defer func() { _ = stream.Close() }()
			begun := stream.Receive()
			ready.Done()
			for ok := begun; ok; ok = stream.Receive() {
				if len(stream.Msg().GetRevoked()) == 1 {
					return
				}
			}
			t.Error(stream.Err())
		})
	}
	ready.Wait()
	s.revokeIDs(t, "zone", "x")
	done.Wait()
}
