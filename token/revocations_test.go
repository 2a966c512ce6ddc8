package token_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zonemint/zonemint/token"
)

// farAway is an exp, in seconds, that the bubble's clock does not reach.
const farAway = 4_000_000_000

func credential(context.Context) (string, error) { return feedCredential + "\n", nil }

// inFeedBubble runs f with a server, changed before the first request, and with
// revocations running, which must leave nothing behind. Whatever was asked for
// in a wrong way, or said what it should not, fails the test.
func inFeedBubble(t *testing.T, change func(*feedServer), o token.RevocationOptions, f func(t *testing.T, s *feedServer, r *token.RemoteRevocations)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := newFeedServer(t)
		change(s)
		transport := &handlerTransport{t: t, handler: s}
		o := o
		if o.Transport == nil {
			o.Transport = transport
		}
		if o.Credential == nil {
			o.Credential = credential
		}
		r, err := token.NewRemoteRevocations(feedURL, "zone", o)
		if err != nil {
			t.Fatal(err)
		}
		stop := runFeed(t, r)
		synctest.Wait()
		f(t, s, r)
		if err := r.Status().Err; err != nil && (strings.Contains(err.Error(), feedCredential) || strings.Contains(err.Error(), "example.com")) {
			t.Errorf("error says too much: %v", err)
		}
		stop()
		transport.running.Wait()
	})
}

func runFeed(t *testing.T, r *token.RemoteRevocations) (stop func()) {
	return runUntilStopped(t, r.Run)
}

func runUntilStopped(t *testing.T, run func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	return func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run returned %v", err)
		}
	}
}

func unchanged(*feedServer) {}

// wantRevoked asks about the jti: "yes", "no", or "unavailable".
func wantRevoked(t *testing.T, r *token.RemoteRevocations, jti, want string) {
	t.Helper()
	revoked, err := r.Revoked(t.Context(), jti)
	got := "no"
	switch {
	case errors.Is(err, token.ErrRevocationsUnavailable) && !revoked:
		got = "unavailable"
	case err != nil:
		t.Errorf("%s: got %t, %v", jti, revoked, err)
	case revoked:
		got = "yes"
	}
	if got != want {
		t.Errorf("revoked %s: got %s (%v), want %s", jti, got, err, want)
	}
}

func TestRevocationsStream(t *testing.T) {
	load := func(s *feedServer) { s.pageSize = 3; s.revoke(farAway, ids("a", 10)...) }
	inFeedBubble(t, load, token.RevocationOptions{}, func(t *testing.T, s *feedServer, r *token.RemoteRevocations) {
		<-r.Ready()
		for _, id := range ids("a", 10) {
			wantRevoked(t, r, id, "yes")
		}
		wantRevoked(t, r, "b", "no")
		s.revoke(farAway, "b")
		s.lift("a-0")
		synctest.Wait()
		wantRevoked(t, r, "b", "yes")
		wantRevoked(t, r, "a-0", "no")
		got := r.Status()
		if got.Epoch != "epoch-1" || got.Seq != 12 || got.Count != 10 || got.Bytes == 0 || !got.Streaming || !got.Usable || got.Failures != 0 || got.Err != nil || got.StreamErr != nil {
			t.Errorf("status is %+v", got)
		}
		time.Sleep(time.Hour) // signs of life keep it fresh
		synctest.Wait()       // one comes now, and the stream may be replaced
		wantRevoked(t, r, "a-0", "no")
		polls, streams, resets := s.counts()
		if got := r.Status(); polls != 0 || streams < 24 || streams > 36 || resets != 1 || got.Age > 10*time.Second || !got.Streaming || got.Failures != 0 {
			t.Errorf("%d polls, %d streams, %d resets, status %+v", polls, streams, resets, got)
		}
	})
}

func TestRevocationsPoll(t *testing.T) {
	load := func(s *feedServer) { s.pageSize = 3; s.revoke(farAway, ids("a", 10)...) }
	inFeedBubble(t, load, token.RevocationOptions{Poll: true}, func(t *testing.T, s *feedServer, r *token.RemoteRevocations) {
		for _, id := range ids("a", 10) {
			wantRevoked(t, r, id, "yes")
		}
		wantRevoked(t, r, "b", "no")
		if polls, streams, resets := s.counts(); polls != 4 || streams != 0 || resets != 1 {
			t.Errorf("%d polls, %d streams, %d resets", polls, streams, resets)
		}
		s.revoke(farAway, "b")
		time.Sleep(5500 * time.Millisecond)
		wantRevoked(t, r, "b", "yes")
		time.Sleep(time.Hour)
		wantRevoked(t, r, "c", "no")
		if got := r.Status(); got.Age > 5500*time.Millisecond || got.Streaming || got.StreamErr != nil {
			t.Errorf("status is %+v", got)
		}
		polls, _, resets := s.counts()
		if polls < 650 || polls > 810 || s.confirmed < polls-10 || s.sent != 11 || resets != 1 {
			t.Errorf("%d polls, %d confirmed, %d entries sent, %d resets", polls, s.confirmed, s.sent, resets)
		}
		s.lift("a-0")
		time.Sleep(6 * time.Second)
		wantRevoked(t, r, "a-0", "no")
	})
}

func TestRevocationsFailClosedBeforeFirstArrival(t *testing.T) {
	slow := func(s *feedServer) { s.pageSize, s.pause = 1, time.Second; s.revoke(farAway, "a", "b", "c") }
	inFeedBubble(t, slow, token.RevocationOptions{Poll: true}, func(t *testing.T, s *feedServer, r *token.RemoteRevocations) {
		wantRevoked(t, r, "a", "unavailable")
		wantRevoked(t, r, "x", "unavailable")
		time.Sleep(1500 * time.Millisecond) // one page of three
		wantRevoked(t, r, "a", "yes")
		wantRevoked(t, r, "x", "unavailable")
		if got := r.Status(); got.Usable || !got.UpdatedAt.IsZero() || got.Seq != 1 {
			t.Errorf("status is %+v", got)
		}
		select {
		case <-r.Ready():
			t.Error("ready too early")
		default:
		}
		<-r.Ready()
		wantRevoked(t, r, "x", "no")
	})
}

func TestRevocationsEmptyFeed(t *testing.T) {
	for _, poll := range []bool{true, false} {
		inFeedBubble(t, unchanged, token.RevocationOptions{Poll: poll}, func(t *testing.T, s *feedServer, r *token.RemoteRevocations) {
			wantRevoked(t, r, "x", "no")
			time.Sleep(time.Hour)
			wantRevoked(t, r, "x", "no")
		})
	}
}

// While the feed is read again nobody is told that something is not revoked which
// is so before and after.
func TestRevocationsReset(t *testing.T) {
	for _, poll := range []bool{true, false} {
		load := func(s *feedServer) { s.pageSize = 10; s.revoke(farAway, append(ids("a", 300), "old")...) }
		inFeedBubble(t, load, token.RevocationOptions{Poll: poll}, func(t *testing.T, s *feedServer, r *token.RemoteRevocations) {
			stop, readers, all := make(chan struct{}), sync.WaitGroup{}, ids("a", 300)
			for n := range 2 {
				readers.Go(func() {
					for i := n; ; i++ {
						select {
						case <-stop:
							return
						default:
							wantRevoked(t, r, all[i%300], "yes")
							time.Sleep(7 * time.Millisecond)
						}
					}
				})
			}
			for round := range 5 {
				s.set(func(s *feedServer) {
					s.epoch = fmt.Sprintf("epoch-%d", round+2)
					delete(s.rows, "old")
					clear(s.midReset)
					for i, id := range append(ids("a", 300), "new") {
						s.rows[id] = feedRow{seq: int64(i + 1), exp: farAway}
					}
				})
				time.Sleep(10 * time.Second)
				wantRevoked(t, r, "new", "yes")
				wantRevoked(t, r, "old", "no")
			}
			close(stop)
			readers.Wait()
			if got := r.Status(); got.Epoch != "epoch-6" || got.Count != 301 || got.Failures != 0 {
				t.Errorf("status is %+v", got)
			}
		})
	}
}

// A reader who slept for so long that tombstones are gone starts over.
func TestRevocationsBelowHorizon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newFeedServer(t)
		s.pageSize = 2
		s.revoke(farAway, "a", "b", "c")
		r, err := token.NewRemoteRevocations(feedURL, "zone", token.RevocationOptions{Credential: credential, Transport: &handlerTransport{t: t, handler: s}})
		if err != nil {
			t.Fatal(err)
		}
		stop := runFeed(t, r)
		<-r.Ready()
		stop()
		s.lift("b")
		s.revoke(farAway, ids("d", 5)...)
		s.set(func(s *feedServer) { delete(s.rows, "b"); s.horizon = 5 })
		stop = runFeed(t, r)
		synctest.Wait()
		wantRevoked(t, r, "b", "no")
		wantRevoked(t, r, "c", "yes")
		wantRevoked(t, r, "d-0", "yes")
		if _, _, resets := s.counts(); resets != 2 || r.Status().Count != 7 {
			t.Errorf("%d resets, status %+v", resets, r.Status())
		}
		stop()
	})
}

// A stream that is cut goes on where it was, without anything missing and without
// reading what was read.
func TestRevocationsCut(t *testing.T) {
	load := func(s *feedServer) { s.pageSize, s.cutAt = 3, 3; s.revoke(farAway, ids("a", 30)...) }
	inFeedBubble(t, load, token.RevocationOptions{}, func(t *testing.T, s *feedServer, r *token.RemoteRevocations) {
		if err := r.Status().Err; !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("got %v", err)
		}
		<-r.Ready()
		for _, id := range ids("a", 30) {
			wantRevoked(t, r, id, "yes")
		}
		polls, streams, resets := s.counts()
		if polls != 0 || streams != 5 || resets != 1 || s.sent != 30+4*3 {
			t.Errorf("%d polls, %d streams, %d resets, %d entries sent", polls, streams, resets, s.sent)
		}
	})
}

func TestRevocationsEndOfStream(t *testing.T) {
	for code, c := range map[string]struct {
		reason string
		polls  bool // at once
	}{
		"unavailable":        {"other", false},
		"resource_exhausted": {"other", false},
		"canceled":           {"other", false},
		"unauthenticated":    {"feed_credential", false},
		"permission_denied":  {"feed_credential", false},
		"not_found":          {"feed_keyset", false},
		"unimplemented":      {"ok", true},
	} {
		t.Run(code, func(t *testing.T) {
			end := func(s *feedServer) { s.endCode = code }
			inFeedBubble(t, end, token.RevocationOptions{}, func(t *testing.T, s *feedServer, r *token.RemoteRevocations) {
				got := r.Status()
				if polls, streams, _ := s.counts(); token.Reason(got.Err) != c.reason || (polls == 1) != c.polls || streams != 1 || got.StreamErr == nil {
					t.Errorf("status is %+v after %d polls", got, polls)
				}
				time.Sleep(2 * time.Second) // it is polled while streams bring nothing
				wantRevoked(t, r, "x", "no")
				s.set(func(s *feedServer) { s.endCode = "" })
				time.Sleep(6 * time.Minute)
				if got := r.Status(); !got.Streaming || got.StreamErr != nil || got.Err != nil {
					t.Errorf("status is %+v", got)
				}
			})
		})
	}
}

func TestRevocationsFallBackToPolling(t *testing.T) {
	for name, refuse := range map[string]func(*feedServer){
		"404":  func(s *feedServer) { s.streamCode = 404 },
		"405":  func(s *feedServer) { s.streamCode = 405 },
		"415":  func(s *feedServer) { s.streamCode = 415 },
		"501":  func(s *feedServer) { s.streamCode = 501 },
		"505":  func(s *feedServer) { s.streamCode = 505 },
		"302":  func(s *feedServer) { s.streamCode = 302 },
		"HTML": func(s *feedServer) { s.streamBody = "<html>" },
	} {
		t.Run(name, func(t *testing.T) {
			load := func(s *feedServer) { refuse(s); s.revoke(farAway, "a") }
			inFeedBubble(t, load, token.RevocationOptions{}, func(t *testing.T, s *feedServer, r *token.RemoteRevocations) {
				wantRevoked(t, r, "a", "yes")
				wantRevoked(t, r, "b", "no")
				if got := r.Status(); got.Streaming || got.Err != nil || got.StreamErr == nil {
					t.Errorf("status is %+v", got)
				}
				time.Sleep(time.Hour)
				wantRevoked(t, r, "b", "no")
				if polls, streams, _ := s.counts(); streams < 12 || streams > 30 || polls < 600 {
					t.Errorf("%d streams and %d polls in an hour", streams, polls)
				}
				s.set(func(s *feedServer) { s.streamCode, s.streamBody = 0, "" })
				time.Sleep(6 * time.Minute)
				if got := r.Status(); !got.Streaming || got.StreamErr != nil {
					t.Errorf("status is %+v", got)
				}
				if _, _, resets := s.counts(); resets != 1 {
					t.Errorf("%d resets", resets)
				}
			})
		})
	}
}

// A proxy that keeps a stream to itself.
func TestRevocationsSilentFromTheStart(t *testing.T) {
	silent := func(s *feedServer) { s.silent = true; s.revoke(farAway, "a") }
	inFeedBubble(t, silent, token.RevocationOptions{}, func(t *testing.T, s *feedServer, r *token.RemoteRevocations) {
		time.Sleep(29 * time.Second)
		wantRevoked(t, r, "a", "unavailable")
		time.Sleep(3 * time.Second)
		wantRevoked(t, r, "a", "yes")
		wantRevoked(t, r, "b", "no")
		for range 360 {
			time.Sleep(10 * time.Second)
			if got := r.Status(); got.Age > 40*time.Second {
				t.Fatalf("status is %+v", got)
			}
		}
	})
}

func TestRevocationsSilentStreamIsReplaced(t *testing.T) {
	inFeedBubble(t, unchanged, token.RevocationOptions{}, func(t *testing.T, s *feedServer, r *token.RemoteRevocations) {
		time.Sleep(time.Minute + time.Second)
		s.set(func(s *feedServer) { s.silent = true })
		synctest.Wait()
		s.set(func(s *feedServer) { s.silent = false })
		time.Sleep(29 * time.Second)
		s.revoke(farAway, "a")
		wantRevoked(t, r, "a", "no")
		time.Sleep(2 * time.Second)
		wantRevoked(t, r, "a", "yes")
		if polls, streams, resets := s.counts(); polls != 0 || streams != 2 || resets != 1 {
			t.Errorf("%d polls, %d streams, %d resets", polls, streams, resets)
		}
	})
}

func TestRevocationsOutage(t *testing.T) {
	for _, poll := range []bool{true, false} {
		load := func(s *feedServer) { s.revoke(farAway, "a") }
		inFeedBubble(t, load, token.RevocationOptions{Poll: poll, MaxStale: 4 * time.Minute}, func(t *testing.T, s *feedServer, r *token.RemoteRevocations) {
			wantRevoked(t, r, "b", "no")
			s.set(func(s *feedServer) { s.status, s.streamCode, s.silent = 500, 500, true })
			time.Sleep(4*time.Minute - 10*time.Second)
			wantRevoked(t, r, "b", "no")
			time.Sleep(10*time.Second + 1)
			wantRevoked(t, r, "b", "unavailable")
			wantRevoked(t, r, "a", "yes") // revoked is revoked
			got := r.Status()
			if got.Usable || got.Err == nil || got.Failures == 0 || got.Streaming || got.Count != 1 {
				t.Errorf("status is %+v", got)
			}
			_, err := r.Revoked(t.Context(), "b")
			if !errors.Is(err, got.Err) {
				t.Errorf("%v does not say why", err)
			}
			before, beforeStreams, _ := s.counts()
			time.Sleep(time.Hour)
			polls, streams, _ := s.counts()
			if n := polls + streams - before - beforeStreams; n < 100 || n > 300 {
				t.Errorf("%d retries in an hour", n)
			}
			s.set(func(s *feedServer) { s.status, s.streamCode, s.silent = 0, 0, false })
			time.Sleep(time.Minute)
			wantRevoked(t, r, "b", "no")
			if got := r.Status(); got.Err != nil || got.Failures != 0 || !got.Usable {
				t.Errorf("status is %+v", got)
			}
		})
	}
}

// Each of the two clocks alone is enough to tell that the feed is too old.
func TestRevocationsAgeByTheClock(t *testing.T) {
	var mu sync.Mutex
	var skip time.Duration
	now := func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return time.Now().Add(skip)
	}
	inFeedBubble(t, unchanged, token.RevocationOptions{Now: now, MaxStale: time.Minute}, func(t *testing.T, s *feedServer, r *token.RemoteRevocations) {
		wantRevoked(t, r, "b", "no")
		mu.Lock()
		skip = time.Minute
		mu.Unlock()
		wantRevoked(t, r, "b", "no")
		mu.Lock()
		skip++
		mu.Unlock()
		wantRevoked(t, r, "b", "unavailable")
		time.Sleep(11 * time.Second)
		wantRevoked(t, r, "b", "no")
	})
}

func TestRevocationsExpire(t *testing.T) {
	inFeedBubble(t, unchanged, token.RevocationOptions{}, func(t *testing.T, s *feedServer, r *token.RemoteRevocations) {
		s.revoke(time.Now().Add(time.Hour).Unix(), ids("a", 5000)...)
		s.revoke(1<<40, "for ever")
		s.revoke(time.Now().Add(-time.Hour).Unix(), "over")
		synctest.Wait()
		full := r.Status()
		if full.Count != 5001 {
			t.Errorf("status is %+v", full)
		}
		time.Sleep(time.Hour + token.MaxLeeway - time.Second)
		wantRevoked(t, r, "a-0", "yes") // a verifier with leeway may still accept it
		time.Sleep(time.Second)
		wantRevoked(t, r, "a-0", "no")
		wantRevoked(t, r, "for ever", "yes")
		wantRevoked(t, r, "over", "no")
		time.Sleep(2 * time.Minute)
		if got := r.Status(); got.Count != 1 || got.Bytes > full.Bytes/3 {
			t.Errorf("status is %+v", got)
		}
	})
}

func TestRevocationsCredential(t *testing.T) {
	for _, poll := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			var mu sync.Mutex
			file, fileErr := feedCredential, error(nil)
			write := func(text string, err error) {
				mu.Lock()
				defer mu.Unlock()
				file, fileErr = text, err
			}
			o := token.RevocationOptions{Poll: poll, Credential: func(context.Context) (string, error) {
				mu.Lock()
				defer mu.Unlock()
				return file, fileErr
			}}
			inFeed(t, o, func(s *feedServer, r *token.RemoteRevocations) {
				wantRevoked(t, r, "b", "no")
				for name, bad := range map[string]struct {
					text string
					err  error
				}{
					"refused": {"zmt_secret_other", nil}, "empty": {" \n", nil}, "two lines": {"zmt_secret\nzmt_secret", nil},
					"odd": {"zmt_secret\x00ä", nil}, "no file": {"", errors.New("no such file")},
				} {
					write(bad.text, bad.err)
					s.set(func(s *feedServer) { s.silent = true })
					time.Sleep(2 * time.Minute)
					got := r.Status()
					if !errors.Is(got.Err, token.ErrFeedCredential) || bad.err != nil && !errors.Is(got.Err, bad.err) || strings.Contains(got.Err.Error(), "zmt_") {
						t.Errorf("%s: status is %+v", name, got)
					}
					write("zmt_rotated", nil)
					s.set(func(s *feedServer) { s.silent, s.credential = false, "zmt_rotated" })
					time.Sleep(time.Minute)
					if got := r.Status(); got.Err != nil || !got.Usable {
						t.Errorf("%s: status is %+v", name, got)
					}
				}
			})
		})
	}
}

// inFeed is the inside of a bubble without the checks of inFeedBubble.
func inFeed(t *testing.T, o token.RevocationOptions, f func(s *feedServer, r *token.RemoteRevocations)) {
	s := newFeedServer(t)
	transport := &handlerTransport{t: t, handler: s}
	o.Transport = transport
	r, err := token.NewRemoteRevocations(feedURL, "zone", o)
	if err != nil {
		t.Fatal(err)
	}
	stop := runFeed(t, r)
	<-r.Ready()
	f(s, r)
	stop()
	transport.running.Wait()
}

func TestRevocationsUnknownKeyset(t *testing.T) {
	unknown := func(s *feedServer) { s.status, s.streamCode = 404, 404 }
	inFeedBubble(t, unknown, token.RevocationOptions{}, func(t *testing.T, s *feedServer, r *token.RemoteRevocations) {
		wantRevoked(t, r, "b", "unavailable")
		if err := r.Status().Err; !errors.Is(err, token.ErrFeedKeyset) || token.Reason(err) != "feed_keyset" {
			t.Errorf("got %v", err)
		}
	})
}

func TestRevocationsRetryAfter(t *testing.T) {
	for after, want := range map[string]time.Duration{"20": 20 * time.Second, "86400": time.Minute} {
		busy := func(s *feedServer) { s.status, s.header = 503, http.Header{"Retry-After": {after}} }
		inFeedBubble(t, busy, token.RevocationOptions{Poll: true}, func(t *testing.T, s *feedServer, r *token.RemoteRevocations) {
			time.Sleep(want - 1)
			if polls, _, _ := s.counts(); polls != 1 {
				t.Errorf("%d polls too early", polls)
			}
			time.Sleep(want/5 + 1)
			if polls, _, _ := s.counts(); polls != 2 {
				t.Errorf("%d polls, want 2", polls)
			}
		})
	}
}

// A page that is not as it should be changes nothing, and is an error.
func TestRevocationsBadPage(t *testing.T) {
	for name, bad := range map[string]string{
		"HTML":           "<html>",
		"cut":            `{"epoch":"epoch-1","seq":9,"revoked":[{"jti":"evil","exp":4000000000}]`,
		"bad at its end": `{"epoch":"epoch-1","seq":9,"revoked":[{"jti":"evil","exp":4000000000},{"jti":"b"}]}`,
		"other keyset":   `{"keyset":"user","epoch":"epoch-1","seq":9,"revoked":[{"jti":"evil","exp":4000000000}]}`,
	} {
		for _, poll := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/poll=%t", name, poll), func(t *testing.T) {
				load := func(s *feedServer) { s.revoke(farAway, "a", "a2") }
				inFeedBubble(t, load, token.RevocationOptions{Poll: poll}, func(t *testing.T, s *feedServer, r *token.RemoteRevocations) {
					s.set(func(s *feedServer) { s.bad = bad; s.seq++ })
					time.Sleep(6 * time.Second)
					got := r.Status()
					if !errors.Is(got.Err, token.ErrFeedPage) || strings.Contains(got.Err.Error(), "evil") {
						t.Errorf("status is %+v", got)
					}
					wantRevoked(t, r, "a", "yes")
					s.set(func(s *feedServer) { s.bad = "" })
					time.Sleep(6 * time.Minute)
					wantRevoked(t, r, "a", "yes")
					wantRevoked(t, r, "evil", "no")
					if got := r.Status(); got.Err != nil || got.Failures != 0 {
						t.Errorf("status is %+v", got)
					}
				})
			})
		}
	}
}

// After a page that does not follow the last the feed is read from its beginning.
func TestRevocationsStartOver(t *testing.T) {
	for name, bad := range map[string]string{
		"other epoch": `{"epoch":"epoch-2","seq":9,"revoked":[{"jti":"evil","exp":4000000000}]}`,
		"backwards":   `{"epoch":"epoch-1","seq":1,"revoked":[{"jti":"evil","exp":4000000000}]}`,
	} {
		for _, poll := range []bool{true, false} {
			load := func(s *feedServer) { s.revoke(farAway, "a", "a2") }
			inFeedBubble(t, load, token.RevocationOptions{Poll: poll}, func(t *testing.T, s *feedServer, r *token.RemoteRevocations) {
				s.set(func(s *feedServer) { s.bad, s.badOnce = bad, true; s.seq++ })
				for range 6000 {
					time.Sleep(time.Millisecond)
					wantRevoked(t, r, "a", "yes")
				}
				time.Sleep(time.Minute)
				wantRevoked(t, r, "a2", "yes")
				wantRevoked(t, r, "evil", "no")
				if _, _, resets := s.counts(); resets != 2 || r.Status().Err != nil || r.Status().Seq != 3 {
					t.Errorf("%s: %d resets, status %+v", name, resets, r.Status())
				}
			})
		}
	}
}

// A server that goes round in circles is not asked without a pause.
func TestRevocationsCircles(t *testing.T) {
	for name, bad := range map[string]string{
		"resets":        `{"epoch":"epoch-1","seq":9,"reset":true,"more":true}`,
		"leads nowhere": `{"epoch":"epoch-1","seq":9,"more":true}`,
	} {
		circle := func(s *feedServer) { s.bad = bad }
		inFeedBubble(t, circle, token.RevocationOptions{Poll: true}, func(t *testing.T, s *feedServer, r *token.RemoteRevocations) {
			time.Sleep(time.Minute)
			if polls, _, _ := s.counts(); polls > 50 || !errors.Is(r.Status().Err, token.ErrFeedPage) {
				t.Errorf("%s: %d polls in a minute, status %+v", name, polls, r.Status())
			}
			wantRevoked(t, r, "x", "unavailable")
		})
	}
}

// A status 304 that nobody asked for confirms nothing.
func TestRevocationsUnaskedConfirmation(t *testing.T) {
	confirm := func(s *feedServer) { s.status = http.StatusNotModified }
	inFeedBubble(t, confirm, token.RevocationOptions{Poll: true}, func(t *testing.T, s *feedServer, r *token.RemoteRevocations) {
		wantRevoked(t, r, "x", "unavailable")
	})
}

func TestRevocationsRunAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inFeed(t, token.RevocationOptions{Credential: credential}, func(s *feedServer, r *token.RemoteRevocations) {
			if err := r.Run(t.Context()); err == nil || errors.Is(err, context.Canceled) {
				t.Errorf("second Run: got %v", err)
			}
		})
		s := newFeedServer(t)
		s.revoke(farAway, "a")
		r, err := token.NewRemoteRevocations(feedURL, "zone", token.RevocationOptions{Credential: credential, Transport: &handlerTransport{t: t, handler: s}})
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			stop := runFeed(t, r)
			synctest.Wait()
			stop()
			wantRevoked(t, r, "a", "yes")
			wantRevoked(t, r, "b", "no")
			if got := r.Status(); got.Err != nil || got.Streaming {
				t.Errorf("status is %+v", got)
			}
		}
		if _, streams, resets := s.counts(); streams != 3 || resets != 1 {
			t.Errorf("%d streams, %d resets", streams, resets)
		}
		time.Sleep(5*time.Minute + 1)
		wantRevoked(t, r, "b", "unavailable")
	})
}

// The same over sockets, with gzip and with a handler that is aborted.
func TestRevocationsOverHTTP(t *testing.T) {
	for _, poll := range []bool{true, false} {
		s := newFeedServer(t)
		s.keyset, s.pageSize, s.compress, s.cutAt = "dataplane/default", 100, true, 2
		s.revoke(farAway, ids("a", 250)...)
		server := httptest.NewServer(s)
		o := token.RevocationOptions{Poll: poll, PollInterval: 10 * time.Millisecond, Credential: credential}
		r, err := token.NewRemoteRevocations(server.URL+"/mint/", "dataplane/default", o)
		if err != nil {
			t.Fatal(err)
		}
		stop := runFeed(t, r)
		<-r.Ready()
		for _, id := range ids("a", 250) {
			wantRevoked(t, r, id, "yes")
		}
		s.set(func(s *feedServer) { s.cutAt = 0 })
		s.revoke(farAway, "b")
		eventually(t, "b is revoked", func() bool {
			revoked, _ := r.Revoked(t.Context(), "b")
			return revoked
		})
		stop()
		server.Close()
	}
}

func TestVerifierWithRemoteRevocations(t *testing.T) {
	is := testIssuers()["EdDSA"]
	raw := is.token(payload())
	keys := testIssuers().keySet(t)
	load := func(s *feedServer) { s.status, s.streamCode = 500, 500 }
	inFeedBubble(t, load, token.RevocationOptions{}, func(t *testing.T, s *feedServer, r *token.RemoteRevocations) {
		closed := zoneVerifier(t, keys, token.Options{Revocations: r})
		open := zoneVerifier(t, keys, token.Options{Revocations: r, RevocationsFailOpen: true})
		want := func(v *token.Verifier[token.ZoneClaims], reason string) {
			t.Helper()
			if _, err := v.Verify(t.Context(), raw); token.Reason(err) != reason || err != nil && strings.Count(err.Error(), "revocations are not available") > 1 {
				t.Errorf("got %v, want %s", err, reason)
			}
		}
		want(closed, "revocations_unavailable")
		want(open, "ok")
		s.set(func(s *feedServer) { s.status, s.streamCode = 0, 0 })
		<-r.Ready()
		want(closed, "ok")
		s.revoke(farAway, goodID)
		time.Sleep(6 * time.Second)
		want(closed, "revoked")
		s.set(func(s *feedServer) { s.status, s.streamCode, s.silent = 500, 500, true })
		time.Sleep(time.Hour)
		want(open, "revoked") // whatever is known counts
	})
}

func TestNewRemoteRevocationsRefuses(t *testing.T) {
	type options = token.RevocationOptions
	for name, c := range map[string]struct {
		url, keyset string
		o           options
	}{
		"plain":        {"http://tokens.example.com", "zone", options{}},
		"relative":     {"/", "zone", options{}},
		"user":         {"https://me:secret@tokens.example.com/", "zone", options{}},
		"query":        {feedURL + "?x=secret", "zone", options{}},
		"no keyset":    {feedURL, "", options{}},
		"three parts":  {feedURL, "a/b/c", options{}},
		"empty part":   {feedURL, "a/", options{}},
		"dots":         {feedURL, "a/..", options{}},
		"long":         {feedURL, strings.Repeat("a", 300), options{}},
		"negative":     {feedURL, "zone", options{Timeout: -1}},
		"interval":     {feedURL, "zone", options{PollInterval: time.Hour}},
		"stream":       {feedURL, "zone", options{MaxStale: 20 * time.Second}},
		"negative age": {feedURL, "zone", options{MaxStale: -time.Second, Poll: true}},
	} {
		_, err := token.NewRemoteRevocations(c.url, c.keyset, c.o)
		if err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: got %v", name, err)
		}
	}
	for _, o := range []options{{}, {Poll: true, MaxStale: 20 * time.Second}} {
		if _, err := token.NewRemoteRevocations(feedURL, "dataplane/default", o); err != nil {
			t.Error(err)
		}
	}
}

func TestRevocationsErrorsHoldNoURL(t *testing.T) {
	down := errors.New("connection refused")
	inFeedBubble(t, unchanged, token.RevocationOptions{Transport: brokenTransport{down}}, func(t *testing.T, s *feedServer, r *token.RemoteRevocations) {
		time.Sleep(time.Minute)
		if got := r.Status(); !errors.Is(got.Err, down) || !errors.Is(got.StreamErr, down) || strings.Contains(got.Err.Error()+got.StreamErr.Error(), "example.com") {
			t.Errorf("status is %+v", got)
		}
	})
}
