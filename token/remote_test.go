package token_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zonemint/zonemint/token"
)

// setBody renders a set of the test keys with these algorithms.
func setBody(t testing.TB, algs ...string) string {
	t.Helper()
	var keys []token.Key
	for _, alg := range algs {
		keys = append(keys, testIssuers()[alg].key(t))
	}
	return mustJSON(t, must(token.NewKeySet(keys...)))
}

func remoteKeys(t testing.TB, s *keyServer, o token.RemoteOptions) *token.RemoteKeys {
	t.Helper()
	o.Transport = s
	r, err := token.NewRemoteKeys(keysURL, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// inBubble runs f with a server that has the ES256 key, and with its keys running.
// Run must have ended when the bubble does.
func inBubble(t *testing.T, o token.RemoteOptions, f func(t *testing.T, s *keyServer, r *token.RemoteKeys)) {
	t.Helper()
	inBubbleWith(t, func(*keyServer) {}, o, f)
}

// inBubbleWith changes the server before the first fetch.
func inBubbleWith(t *testing.T, change func(*keyServer), o token.RemoteOptions, f func(t *testing.T, s *keyServer, r *token.RemoteKeys)) {
	t.Helper()
	testIssuers() // made outside: it must not belong to one bubble
	synctest.Test(t, func(t *testing.T) {
		s := newKeyServer(t, setBody(t, "ES256"))
		change(s)
		r := remoteKeys(t, s, o)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		f(t, s, r)
		stop()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run returned %v", err)
		}
	})
}

func wantKey(t *testing.T, r *token.RemoteKeys, alg, reason string) {
	t.Helper()
	if _, err := r.Key(t.Context(), testIssuers()[alg].kid); token.Reason(err) != reason {
		t.Errorf("key for %s: got %v, want %s", alg, err, reason)
	}
}

func TestRemoteFirstFetch(t *testing.T) {
	inBubbleWith(t, func(s *keyServer) { s.delay = time.Second }, token.RemoteOptions{}, func(t *testing.T, s *keyServer, r *token.RemoteKeys) {
		wantKey(t, r, "ES256", "ok") // waits for the fetch
		got := r.Status()
		if len(got.KeyIDs) != 1 || !got.Usable || got.Err != nil || got.Age != time.Second || s.count() != 1 {
			t.Errorf("status is %+v after %d requests", got, s.count())
		}
	})
}

func TestRemoteRefreshesAhead(t *testing.T) {
	inBubble(t, token.RemoteOptions{}, func(t *testing.T, s *keyServer, r *token.RemoteKeys) {
		time.Sleep(time.Hour)
		synctest.Wait()
		s.mu.Lock()
		defer s.mu.Unlock()
		for i := 1; i < len(s.requests); i++ {
			if gap := s.requests[i].Sub(s.requests[i-1]); gap < 70*time.Second || gap > 90*time.Second {
				t.Errorf("%s between two fetches with max-age=100", gap)
			}
		}
		if n := len(s.requests); n < 40 || s.confirmed != n-1 {
			t.Errorf("%d requests, %d confirmed", n, s.confirmed)
		}
	})
}

func TestRemoteIntervals(t *testing.T) {
	for cacheControl, want := range map[string]time.Duration{
		"max-age=0": 10 * time.Second, "no-store": 10 * time.Second, "max-age=junk": 10 * time.Second,
		"max-age=864000": 15 * time.Minute, "": 15 * time.Minute, "max-age=60": time.Minute,
	} {
		inBubbleWith(t, func(s *keyServer) { s.cacheControl = cacheControl }, token.RemoteOptions{}, func(t *testing.T, s *keyServer, r *token.RemoteKeys) {
			time.Sleep(want * 69 / 100)
			synctest.Wait()
			if n := s.count(); n != 1 {
				t.Errorf("%q: %d requests too early", cacheControl, n)
			}
			time.Sleep(want * 22 / 100)
			synctest.Wait()
			if n := s.count(); n != 2 {
				t.Errorf("%q: %d requests, want 2", cacheControl, n)
			}
		})
	}
}

func TestRemoteConfirmedSetStaysYoung(t *testing.T) {
	o := token.RemoteOptions{MaxStale: 5 * time.Minute}
	inBubble(t, o, func(t *testing.T, s *keyServer, r *token.RemoteKeys) {
		time.Sleep(time.Hour)
		wantKey(t, r, "ES256", "ok")
		if s.confirmed == 0 {
			t.Error("no 304")
		}
	})
}

// A status 304 that nobody asked for must not count as a set.
func TestRemoteUnaskedConfirmation(t *testing.T) {
	inBubbleWith(t, func(s *keyServer) { s.status = http.StatusNotModified }, token.RemoteOptions{}, func(t *testing.T, s *keyServer, r *token.RemoteKeys) {
		wantKey(t, r, "ES256", "keys_unavailable")
	})
}

func TestRemoteUnknownKeyIsFetchedOnce(t *testing.T) {
	o := token.RemoteOptions{UnknownKeyInterval: 30 * time.Second}
	inBubble(t, o, func(t *testing.T, s *keyServer, r *token.RemoteKeys) {
		wantKey(t, r, "ES256", "ok")
		s.set(func(s *keyServer) { s.delay = time.Second })
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() { wantKey(t, r, "EdDSA", "unknown_key") })
		}
		wg.Wait()
		if n := s.count(); n != 2 {
			t.Errorf("%d requests for 50 callers, want 1 more than the first", n)
		}
		begin := time.Now()
		wantKey(t, r, "EdDSA", "unknown_key")
		if n := s.count(); n != 2 || time.Since(begin) != 0 {
			t.Errorf("asked again after %s, %d requests", time.Since(begin), n)
		}
		time.Sleep(30 * time.Second)
		wantKey(t, r, "EdDSA", "unknown_key")
		if n := s.count(); n != 3 {
			t.Errorf("%d requests after the interval, want 3", n)
		}
	})
}

func TestRemoteRotation(t *testing.T) {
	inBubble(t, token.RemoteOptions{}, func(t *testing.T, s *keyServer, r *token.RemoteKeys) {
		wantKey(t, r, "ES256", "ok")
		s.set(func(s *keyServer) { s.body, s.etag = setBody(t, "EdDSA"), `"2"` })
		wantKey(t, r, "EdDSA", "ok")
		wantKey(t, r, "ES256", "unknown_key")
	})
}

// Distrusting the last key leaves an empty set, which must take effect.
func TestRemoteEmptySet(t *testing.T) {
	inBubble(t, token.RemoteOptions{}, func(t *testing.T, s *keyServer, r *token.RemoteKeys) {
		wantKey(t, r, "ES256", "ok")
		s.set(func(s *keyServer) { s.body, s.etag = `{"keys":[]}`, "" })
		time.Sleep(2 * time.Minute)
		wantKey(t, r, "ES256", "unknown_key")
	})
}

func TestRemoteOutage(t *testing.T) {
	o := token.RemoteOptions{MaxStale: 20 * time.Minute}
	down := errors.New("connection refused")
	inBubble(t, o, func(t *testing.T, s *keyServer, r *token.RemoteKeys) {
		wantKey(t, r, "ES256", "ok")
		s.set(func(s *keyServer) { s.down = down })
		time.Sleep(20 * time.Minute)
		wantKey(t, r, "ES256", "ok")
		if got := r.Status(); !errors.Is(got.Err, down) || got.Failures == 0 || !got.Usable || got.Age != 20*time.Minute {
			t.Errorf("status in an outage is %+v", got)
		}
		time.Sleep(time.Nanosecond)
		wantKey(t, r, "ES256", "stale_keys")
		_, err := r.Key(t.Context(), testIssuers()["ES256"].kid)
		if !errors.Is(err, token.ErrStaleKeys) || !errors.Is(err, down) || strings.Contains(err.Error(), "example.com") {
			t.Errorf("got %v", err)
		}
		if got := r.Status(); got.Usable {
			t.Errorf("status is %+v", got)
		}
		before := s.count()
		time.Sleep(time.Hour)
		if n := s.count() - before; n < 100 || n > 300 {
			t.Errorf("%d retries in an hour", n)
		}
		s.set(func(s *keyServer) { s.down = nil })
		time.Sleep(30 * time.Second)
		wantKey(t, r, "ES256", "ok")
		if got := r.Status(); got.Err != nil || got.Failures != 0 || !got.Usable {
			t.Errorf("status after the outage is %+v", got)
		}
	})
}

// A set that has become too old is fetched when it is asked for.
func TestRemoteStaleRecovers(t *testing.T) {
	var skip time.Duration
	now := func() time.Time { return time.Now().Add(skip) }
	inBubble(t, token.RemoteOptions{Now: now}, func(t *testing.T, s *keyServer, r *token.RemoteKeys) {
		wantKey(t, r, "ES256", "ok")
		synctest.Wait()
		skip = 25 * time.Hour // the machine slept
		wantKey(t, r, "ES256", "ok")
		if n := s.count(); n != 2 {
			t.Errorf("%d requests", n)
		}
	})
}

func TestRemoteBadAnswerKeepsTheSet(t *testing.T) {
	for name, change := range map[string]func(*keyServer){
		"status":   func(s *keyServer) { s.status = http.StatusInternalServerError },
		"missing":  func(s *keyServer) { s.status = http.StatusNotFound },
		"created":  func(s *keyServer) { s.status = http.StatusCreated },
		"HTML":     func(s *keyServer) { s.body = "<html>captive portal</html>" },
		"empty":    func(s *keyServer) { s.body = "" },
		"private":  func(s *keyServer) { s.body = `{"keys":[{"kty":"oct","k":"AAAA"}]}` },
		"too long": func(s *keyServer) { s.body = `{"keys":[]}` + strings.Repeat(" ", token.MaxKeySetSize) },
		"redirect": func(s *keyServer) { s.location = "https://evil.example/moved.json" },
		"http":     func(s *keyServer) { s.location = "http://tokens.example.com/moved.json" },
		"port":     func(s *keyServer) { s.location = "https://tokens.example.com:8443/moved.json" },
		"loop":     func(s *keyServer) { s.location = "/around" },
		"hangs":    func(s *keyServer) { s.delay = time.Hour },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, token.RemoteOptions{}, func(t *testing.T, s *keyServer, r *token.RemoteKeys) {
				wantKey(t, r, "ES256", "ok")
				s.set(change)
				s.set(func(s *keyServer) { s.etag = "" })
				time.Sleep(3 * time.Minute)
				wantKey(t, r, "ES256", "ok")
				if got := r.Status(); got.Err == nil || got.Failures == 0 {
					t.Errorf("status is %+v", got)
				}
			})
		})
	}
}

func TestRemoteFollowsRedirectOnSameHost(t *testing.T) {
	inBubbleWith(t, func(s *keyServer) { s.location = "/moved.json" }, token.RemoteOptions{}, func(t *testing.T, s *keyServer, r *token.RemoteKeys) {
		wantKey(t, r, "ES256", "ok")
	})
}

func TestRemoteCallerNeedNotWait(t *testing.T) {
	inBubble(t, token.RemoteOptions{}, func(t *testing.T, s *keyServer, r *token.RemoteKeys) {
		wantKey(t, r, "ES256", "ok")
		s.set(func(s *keyServer) { s.delay = time.Hour })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begin := time.Now()
		_, err := r.Key(ctx, "zone-9")
		if !errors.Is(err, token.ErrKeysUnavailable) || !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != time.Second {
			t.Errorf("got %v after %s", err, time.Since(begin))
		}
		begin = time.Now()
		wantKey(t, r, "ES256", "ok")
		wantKey(t, r, "EdDSA", "unknown_key") // the fetch under way ends at its timeout
		if d := time.Since(begin); d > 10*time.Second {
			t.Errorf("waited %s", d)
		}
	})
}

func TestRemoteWithoutRun(t *testing.T) {
	testIssuers()
	synctest.Test(t, func(t *testing.T) {
		s := newKeyServer(t, setBody(t, "ES256"))
		r := remoteKeys(t, s, token.RemoteOptions{Timeout: 3 * time.Second})
		begin := time.Now()
		wantKey(t, r, "ES256", "keys_unavailable")
		if d := time.Since(begin); d != 3*time.Second || s.count() != 0 {
			t.Errorf("waited %s, %d requests", d, s.count())
		}
		if got := r.Status(); got.Usable || !got.FetchedAt.IsZero() {
			t.Errorf("status is %+v", got)
		}
	})
}

func TestRemoteRunsAgain(t *testing.T) {
	testIssuers()
	synctest.Test(t, func(t *testing.T) {
		s := newKeyServer(t, setBody(t, "ES256"))
		r := remoteKeys(t, s, token.RemoteOptions{})
		for round := range 2 {
			ctx, stop := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- r.Run(ctx) }()
			synctest.Wait()
			if err := r.Run(ctx); err == nil || errors.Is(err, context.Canceled) {
				t.Errorf("second Run: got %v", err)
			}
			stop()
			<-done
			begin := time.Now()
			wantKey(t, r, "ES256", "ok")
			wantKey(t, r, "EdDSA", "unknown_key")
			if d := time.Since(begin); d != 0 || s.count() != round+1 {
				t.Errorf("after Run: waited %s, %d requests", d, s.count())
			}
		}
		time.Sleep(24*time.Hour + 1)
		wantKey(t, r, "ES256", "stale_keys")
	})
}

// Stopping while a caller waits lets the caller go.
func TestRemoteStopReleasesWaiters(t *testing.T) {
	inBubble(t, token.RemoteOptions{Timeout: time.Minute}, func(t *testing.T, s *keyServer, r *token.RemoteKeys) {
		wantKey(t, r, "ES256", "ok")
		s.set(func(s *keyServer) { s.delay = time.Hour })
		go wantKey(t, r, "EdDSA", "unknown_key")
		synctest.Wait()
	})
}

// So does a Run that ends before its first fetch.
func TestRemoteEndedRunReleasesWaiters(t *testing.T) {
	testIssuers()
	for range 20 { // the fetch may win, and then fails
		synctest.Test(t, func(t *testing.T) {
			r := remoteKeys(t, newKeyServer(t, setBody(t, "ES256")), token.RemoteOptions{})
			ctx, stop := context.WithCancel(t.Context())
			stop()
			begin, waiter := time.Now(), make(chan struct{})
			go func() {
				defer close(waiter)
				wantKey(t, r, "ES256", "keys_unavailable")
			}()
			synctest.Wait()
			if err := r.Run(ctx); !errors.Is(err, context.Canceled) {
				t.Errorf("Run returned %v", err)
			}
			<-waiter
			if d := time.Since(begin); d != 0 {
				t.Errorf("waited %s", d)
			}
		})
	}
}

func TestNewRemoteKeysRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		url string
		o   token.RemoteOptions
	}{
		"plain":     {"http://tokens.example.com/jwks.json", token.RemoteOptions{}},
		"lookalike": {"http://localhost.example.com/jwks.json", token.RemoteOptions{}},
		"file":      {"file:///etc/passwd", token.RemoteOptions{}},
		"relative":  {"/jwks.json", token.RemoteOptions{}},
		"empty":     {"", token.RemoteOptions{}},
		"user":      {"https://me:secret@tokens.example.com/", token.RemoteOptions{}},
		"fragment":  {"https://tokens.example.com/#x", token.RemoteOptions{}},
		"negative":  {keysURL, token.RemoteOptions{Timeout: -1}},
		"intervals": {keysURL, token.RemoteOptions{MinInterval: time.Hour}},
		"staleness": {keysURL, token.RemoteOptions{MaxInterval: time.Hour, MaxStale: time.Minute}},
	} {
		_, err := token.NewRemoteKeys(c.url, c.o)
		if err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: got %v", name, err)
		}
	}
	for _, url := range []string{keysURL, "http://127.0.0.1:8440/x", "http://[::1]/x", "http://localhost/x"} {
		if _, err := token.NewRemoteKeys(url, token.RemoteOptions{}); err != nil {
			t.Errorf("%s: %v", url, err)
		}
	}
	if _, err := token.NewRemoteKeys("http://tokens.example.com", token.RemoteOptions{AllowPlainHTTP: true}); err != nil {
		t.Error(err)
	}
}
