package token_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zonemint/zonemint/token"
)

// What was dropped by a clock that was ahead is not called good when it is right
// again, but read again.
func TestRevocationsClockAheadAndBack(t *testing.T) {
	for _, poll := range []bool{true, false} {
		var ahead atomic.Int64
		o := token.RevocationOptions{Poll: poll, Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }}
		inFeedBubble(t, unchanged, o, func(t *testing.T, s *feedServer, r *token.RemoteRevocations) {
			s.revoke(time.Now().Add(time.Hour).Unix(), ids("a", 5000)...)
			time.Sleep(10 * time.Second)
			wantRevoked(t, r, "a-0", "yes")
			ahead.Store(int64(24 * time.Hour))
			time.Sleep(2 * time.Minute)
			s.revoke(time.Now().Add(time.Hour).Unix(), "b")
			time.Sleep(20 * time.Second)
			if got := r.Status(); got.Count > 100 || !got.Usable {
				t.Errorf("status is %+v", got)
			}
			ahead.Store(0)
			for _, id := range []string{"a-0", "b", "x"} {
				wantRevoked(t, r, id, "unavailable")
			}
			if got := r.Status(); got.Usable {
				t.Errorf("status is %+v", got)
			}
			time.Sleep(20 * time.Second)
			for id, want := range map[string]string{"a-0": "yes", "b": "yes", "x": "no"} {
				wantRevoked(t, r, id, want)
			}
			if _, _, resets := s.counts(); resets != 2 || r.Status().Err != nil || r.Status().Count != 5001 {
				t.Errorf("%d resets, status %+v", resets, r.Status())
			}
		})
	}
}

// A clock that goes back a little, or back when nothing was dropped, does no harm.
func TestRevocationsClockBackWithoutLoss(t *testing.T) {
	var ahead atomic.Int64
	o := token.RevocationOptions{Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }}
	inFeedBubble(t, unchanged, o, func(t *testing.T, s *feedServer, r *token.RemoteRevocations) {
		s.revoke(time.Now().Add(time.Hour).Unix(), ids("a", 5000)...)
		ahead.Store(int64(30 * time.Minute))
		time.Sleep(10*time.Minute + time.Second/2) // not when pages come
		ahead.Store(0)
		wantRevoked(t, r, "x", "no")
		wantRevoked(t, r, "a-0", "yes")
		time.Sleep(49*time.Minute + token.MaxLeeway)
		for range 240 { // some of which see how all are dropped
			wantRevoked(t, r, "x", "no")
			ahead.Store(int64(3 * time.Second))
			time.Sleep(time.Second)
			ahead.Store(0)
		}
		if _, _, resets := s.counts(); resets != 1 || r.Status().Count != 0 {
			t.Errorf("%d resets, status %+v", resets, r.Status())
		}
	})
}

// What a reset has brought stays known if it comes to nothing. What it lifts is
// lifted only at its end.
func TestRevocationsResetComesToNothing(t *testing.T) {
	load := func(s *feedServer) { s.revoke(farAway, "a", "b") }
	inFeedBubble(t, load, token.RevocationOptions{Poll: true}, func(t *testing.T, s *feedServer, r *token.RemoteRevocations) {
		begin := func(epoch string) {
			s.set(func(s *feedServer) {
				s.epoch, s.pageSize, s.pause, s.seq = epoch, 2, time.Second, 3
				s.rows = map[string]feedRow{"a": {1, farAway, true}, "new-" + epoch: {2, farAway, false}, "last-" + epoch: {3, farAway, false}}
			})
			for r.Status().Epoch != epoch {
				time.Sleep(10 * time.Millisecond)
			}
			if got := r.Status(); got.Seq != 2 {
				t.Errorf("status is %+v", got)
			}
		}
		want := func(a, b, e2, e3, last string) {
			t.Helper()
			for id, want := range map[string]string{"a": a, "b": b, "new-e2": e2, "new-e3": e3, "last-e3": last, "x": "no"} {
				wantRevoked(t, r, id, want)
			}
		}
		begin("e2")
		want("yes", "yes", "yes", "no", "no")
		begin("e3") // replaces it
		want("yes", "yes", "yes", "yes", "no")
		s.set(func(s *feedServer) { s.bad, s.badOnce = `{"epoch":"e4","seq":9}`, true })
		for r.Status().Epoch != "" { // drops it
			time.Sleep(10 * time.Millisecond)
		}
		want("yes", "yes", "yes", "yes", "no")
		time.Sleep(10 * time.Second)
		want("no", "no", "no", "yes", "yes")
	})
}

// Somebody who delays what a stream says does not hide a revocation for longer
// than he may: neither if he lets other requests through, nor if not.
func TestRevocationsLateStream(t *testing.T) {
	for _, hold := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s := newFeedServer(t)
			inner := &handlerTransport{t: t, handler: s}
			late := &lateTransport{inner: inner}
			const maxStale = 100 * time.Second
			begin := time.Now()
			r, err := token.NewRemoteRevocations(feedURL, "zone", token.RevocationOptions{
				Credential: credential, Transport: late, MaxStale: maxStale,
			})
			if err != nil {
				t.Fatal(err)
			}
			stop := runFeed(t, r)
			<-r.Ready()
			late.hold.Store(hold)
			for round := range 5 {
				id := fmt.Sprint("a-", round)
				time.Sleep(100 * time.Second)
				s.revoke(farAway, id)
				time.Sleep(maxStale*3/2 + time.Millisecond)
				if revoked, err := r.Revoked(t.Context(), id); !revoked && err == nil {
					t.Errorf("hold %t: %s is called good after one and a half times MaxStale, status %+v", hold, id, r.Status())
				}
			}
			if got := r.Status(); got.Usable == hold || hold && got.UpdatedAt.Sub(begin) != maxStale/2 {
				t.Errorf("hold %t: status is %+v", hold, got)
			}
			stop()
			inner.running.Wait()
			late.running.Wait()
		})
	}
}

// lateTransport gives a message of a stream every 29 seconds, however many there
// are, and answers nothing if it is to hold.
type lateTransport struct {
	inner   http.RoundTripper
	hold    atomic.Bool
	running sync.WaitGroup
}

func (c *lateTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	if c.hold.Load() {
		<-req.Context().Done()
		return nil, req.Context().Err()
	}
	resp, err := c.inner.RoundTrip(req)
	if err != nil || req.Method != http.MethodPost {
		return resp, err
	}
	body, messages := resp.Body, make(chan []byte, 1000)
	r, w := io.Pipe()
	c.running.Go(func() {
		defer close(messages)
		for {
			header := make([]byte, 5)
			if _, err := io.ReadFull(body, header); err != nil {
				return
			}
			message := make([]byte, binary.BigEndian.Uint32(header[1:]))
			if _, err := io.ReadFull(body, message); err != nil {
				return
			}
			messages <- append(header, message...)
		}
	})
	c.running.Go(func() {
		defer func() { _ = w.Close() }()
		for m := range messages {
			if _, err := w.Write(m); err != nil || wait(req.Context(), 29*time.Second) != nil {
				return
			}
		}
	})
	resp.Body = &pipeBody{r, func() { _ = body.Close() }}
	return resp, nil
}
