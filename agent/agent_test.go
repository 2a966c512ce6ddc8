package agent_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/zonemint/zonemint/agent"
)

func TestWhatIsThereAtTheStart(t *testing.T) {
	for name, tc := range map[string]struct {
		there func(now time.Time) string
		kept  bool
	}{
		"nothing":         {func(time.Time) string { return "" }, false},
		"a fresh one":     {func(now time.Time) string { return zoneToken("old", now, life, "cp") }, true},
		"half is over":    {func(now time.Time) string { return zoneToken("old", now.Add(-life/2), life, "cp") }, true},
		"two thirds are":  {func(now time.Time) string { return zoneToken("old", now.Add(-life*2/3), life, "cp") }, false},
		"expired":         {func(now time.Time) string { return zoneToken("old", now.Add(-2*life), life, "cp") }, false},
		"from the future": {func(now time.Time) string { return zoneToken("old", now.Add(life), life, "cp") }, false},
		"for ten years":   {func(now time.Time) string { return zoneToken("old", now, 87600*time.Hour, "cp") }, false},
		"a line of text":  {func(now time.Time) string { return zoneToken("old", now, life, "cp") + "\n" }, false},
		"another scope":   {func(now time.Time) string { return zoneToken("old", now, life, "ingress") }, false},
		"one scope more":  {func(now time.Time) string { return zoneToken("old", now, life, "cp", "ingress") }, false},
		"without an expiry": {func(time.Time) string {
			return sign(map[string]any{"Zone": "east", "Scope": []string{"cp"}, "jti": "old"})
		}, false},
		"a dataplane's": {func(now time.Time) string {
			claims := map[string]any{"Name": "d", "Mesh": "default", "jti": "old"}
			stamp(claims, now, life)
			return sign(claims)
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.put(t, tc.there(time.Now()))
				_, stop := w.start(t)
				defer stop()
				synctest.Wait()
				if kept := w.id(t) == "old"; kept != tc.kept || kept == (w.server.count() > 0) {
					t.Errorf("kept: %v, issued: %d\n%s", kept, w.server.count(), w.log)
				}
				time.Sleep(life)
				if w.id(t) == "old" {
					t.Error("it was never renewed")
				}
			})
		})
	}
}

func TestAnotherZoneIsAskedForAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		claims := map[string]any{"Zone": "west", "Scope": []string{"cp"}, "jti": "old"}
		stamp(claims, time.Now(), life)
		w.put(t, sign(claims))
		w.server.breaks(errDown)
		a, stop := w.start(t)
		defer stop()
		time.Sleep(time.Minute)
		if a.Ready() == nil {
			t.Error("ready with another zone's token")
		}
		w.server.breaks(nil)
		time.Sleep(time.Minute)
		if w.id(t) == "old" || a.Ready() != nil {
			t.Error("it was kept;", a.Ready())
		}
	})
}

// TestAnOldTokenServesThroughAnOutageAtTheStart has less than a third left, and no
// server.
func TestAnOldTokenServesThroughAnOutageAtTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.put(t, zoneToken("old", time.Now().Add(-life*3/4), life, "cp"))
		w.server.breaks(errDown)
		a, stop := w.start(t)
		defer stop()
		time.Sleep(life / 8)
		if a.Ready() != nil || w.id(t) != "old" {
			t.Error("while it is valid:", a.Ready())
		}
		time.Sleep(life / 8)
		if a.Ready() == nil {
			t.Error("ready after its end")
		}
	})
}

func TestWhatIsIssuedIsChecked(t *testing.T) {
	for name, change := range map[string]func(map[string]any){
		"another zone": func(c map[string]any) { c["Zone"] = "west" },
		"more scopes":  func(c map[string]any) { c["Scope"] = []string{"cp", "egress"} },
		"no ID":        func(c map[string]any) { delete(c, "jti") },
		"no expiry":    func(c map[string]any) { delete(c, "exp") },
		"no beginning": func(c map[string]any) { delete(c, "iat") },
		"a list":       func(c map[string]any) { c["Scope"] = "cp" },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.server.change = change
				_, err := agent.New(w.o).Once(t.Context())
				if err == nil || !strings.Contains(err.Error(), "was not asked for") || w.has(t) != "" {
					t.Errorf("got %v, the file has %q", err, w.has(t))
				}
			})
		})
	}
}

func TestWrongClocksAreReported(t *testing.T) {
	for name, tc := range map[string]struct {
		by   time.Duration
		want []string
	}{
		"right":      {0, nil},
		"a bit off":  {2 * time.Second, nil},
		"ahead":      {10 * time.Minute, []string{"level=WARN", "this_clock_is=ahead by=10m0s"}},
		"behind":     {-3 * time.Second * 20, []string{"this_clock_is=behind by=1m0s", "level=ERROR"}},
		"past it":    {2 * time.Hour, []string{"level=ERROR", "this_clock_is=ahead by=2h0m0s"}},
		"long since": {-24 * time.Hour, []string{"level=ERROR", "this_clock_is=behind by=24h0m0s"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.o.Now = func() time.Time { return time.Now().Add(tc.by) }
				if _, err := agent.New(w.o).Once(t.Context()); err != nil {
					t.Fatal(err)
				}
				for _, want := range tc.want {
					if w.log.count(want) != 1 {
						t.Errorf("the log does not say %q once:\n%s", want, w.log)
					}
				}
				if tc.want == nil && w.log.count("clock") > 0 {
					t.Errorf("the log has\n%s", w.log)
				}
			})
		})
	}
}

func TestAHookThatFailsIsCalledAgainWithoutANewToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var mu sync.Mutex
		var all []string
		fail := true
		w.o.After = func(_ context.Context, token agent.Token) error {
			mu.Lock()
			defer mu.Unlock()
			all = append(all, token.ID)
			if fail {
				return errors.New("no such service")
			}
			return nil
		}
		calls := func() []string {
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(all)
		}
		a, stop := w.start(t)
		time.Sleep(10 * time.Minute)
		failed := len(calls())
		if failed < 5 || w.server.count() != 1 || a.Ready() != nil {
			t.Errorf("%d calls, %d tokens, ready: %v", failed, w.server.count(), a.Ready())
		}
		mu.Lock()
		fail = false
		mu.Unlock()
		time.Sleep(10 * time.Minute)
		if len(calls()) != failed+1 {
			t.Errorf("%d calls after it worked", len(calls())-failed)
		}
		time.Sleep(life / 2)
		if calls()[len(calls())-1] != "jti-2" {
			t.Errorf("calls for %q", calls())
		}
		stop()
		// Nobody knows whether an agent that died had called it.
		n := len(calls())
		_, stop = w.start(t)
		time.Sleep(time.Minute)
		stop()
		if len(calls()) != n+1 || calls()[n] != "jti-2" {
			t.Errorf("after a restart there were calls for %q", calls()[n:])
		}
	})
}

func TestATokenThatWasTakenAwayIsPutBack(t *testing.T) {
	for name, harm := range map[string]func(t *testing.T, w *world){
		"removed":      func(t *testing.T, w *world) { _ = os.Remove(w.path) },
		"junk":         func(t *testing.T, w *world) { w.put(t, "junk") },
		"another zone": func(t *testing.T, w *world) { w.put(t, zoneToken("x", time.Now(), life, "egress")) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				_, stop := w.start(t)
				defer stop()
				time.Sleep(time.Minute + time.Second)
				w.server.breaks(errDown) // it takes no server
				harm(t, w)
				time.Sleep(time.Minute)
				if w.id(t) != "jti-1" {
					t.Errorf("the file has %s", w.id(t))
				}
				time.Sleep(life * 3 / 4) // it is due and the server is away
				harm(t, w)
				time.Sleep(time.Minute)
				if w.id(t) != "jti-1" {
					t.Errorf("when it was due the file has %s", w.id(t))
				}
			})
		})
	}
}

func TestAnotherAgentsTokenIsTakenOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		_, stop := w.start(t)
		defer stop()
		time.Sleep(life/2 + 30*time.Second) // not while the agent looks: put is not atomic
		w.put(t, zoneToken("other", time.Now(), life, "cp"))
		time.Sleep(life / 2)
		if w.server.count() != 1 || w.id(t) != "other" {
			t.Errorf("%d tokens issued, the file has %s", w.server.count(), w.id(t))
		}
	})
}

func TestRenewNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, stop := w.start(t)
		defer stop()
		time.Sleep(time.Minute)
		w.server.breaks(errDown)
		a.Renew()
		time.Sleep(10 * time.Minute)
		if w.id(t) != "jti-1" {
			t.Error("the old token is gone")
		}
		w.server.breaks(nil)
		a.Renew() // does not wait for the pause to end
		time.Sleep(time.Second)
		synctest.Wait()
		if w.id(t) != "jti-2" {
			t.Errorf("the file has %s", w.id(t))
		}
	})
}

func TestWhoAsksOverAndOverDoesNotGetTokensByTheThousand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, stop := w.start(t)
		defer stop()
		for range 1000 {
			a.Renew()
			synctest.Wait()
			time.Sleep(10 * time.Millisecond)
		}
		if n := w.server.count(); n < 5 || n > 12 {
			t.Errorf("%d tokens in ten seconds", n)
		}
	})
}

func TestATokenThatIsTakenAwayComesBackAlsoWhileANewOneIsWanted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, stop := w.start(t)
		defer stop()
		time.Sleep(time.Minute)
		w.server.breaks(errDown)
		a.Renew()
		time.Sleep(time.Minute)
		must(t, os.Remove(w.path))
		time.Sleep(3 * time.Minute)
		if w.has(t) == "" && a.Ready() == nil {
			t.Error("there is no token, and the agent says that there is")
		}
		if w.id(t) != "jti-1" {
			t.Errorf("the file has %s", w.id(t))
		}
	})
}

// brokenSink cannot be written for a while.
type brokenSink struct {
	agent.Sink
	broken atomic.Bool
}

func (s *brokenSink) Write(ctx context.Context, t agent.Token) error {
	if s.broken.Load() {
		return errors.New("no space left")
	}
	return s.Sink.Write(ctx, t)
}

func TestATokenThatCannotBeWrittenIsNotFetchedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		sink := &brokenSink{Sink: w.o.Sink}
		sink.broken.Store(true)
		w.o.Sink = sink
		a, stop := w.start(t)
		defer stop()
		time.Sleep(life / 2)
		if w.server.count() != 1 || a.Ready() == nil {
			t.Errorf("%d tokens were issued; ready: %v", w.server.count(), a.Ready())
		}
		time.Sleep(2 * life) // one that has grown old is of no use
		if n := w.server.count(); n < 3 || n > 5 {
			t.Errorf("%d tokens were issued", n)
		}
		sink.broken.Store(false)
		time.Sleep(time.Minute)
		if a.Ready() != nil {
			t.Error(a.Ready())
		}
	})
}

func TestOnceEnds(t *testing.T) {
	for name, tc := range map[string]struct {
		err  error
		soon bool
	}{
		"denied":      {connect.NewError(connect.CodePermissionDenied, errors.New("not for you")), true},
		"no API":      {connect.NewError(connect.CodeUnimplemented, errors.New("404")), true},
		"unavailable": {errDown, false},
		"no file":     {errors.New("no API token"), false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.server.breaks(tc.err)
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()
				began := time.Now()
				_, err := agent.New(w.o).Once(ctx)
				if !errors.Is(err, tc.err) {
					t.Errorf("got %v", err)
				}
				if soon := time.Since(began) < time.Second; soon != tc.soon {
					t.Errorf("it took %s", time.Since(began))
				}
			})
		})
	}
}

func TestOnceKeepsAGoodTokenAndCallsTheHook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.put(t, zoneToken("old", time.Now(), life, "cp"))
		calls := 0
		w.o.After = func(context.Context, agent.Token) error {
			if calls++; calls < 3 {
				return errors.New("not yet")
			}
			return nil
		}
		got, err := agent.New(w.o).Once(t.Context())
		if err != nil || got.ID != "old" || calls != 3 {
			t.Errorf("got %s, %v after %d calls", got, err, calls)
		}
	})
}

func TestOnceReplacesAnOldTokenThroughFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.put(t, zoneToken("old", time.Now().Add(-life*9/10), life, "cp"))
		w.server.breaks(errDown)
		time.AfterFunc(90*time.Second, func() { w.server.breaks(nil) })
		got, err := agent.New(w.o).Once(t.Context())
		if err != nil || got.ID != "jti-1" || w.id(t) != "jti-1" {
			t.Errorf("got %s, %v", got, err)
		}
	})
}

func TestMetricsAndHealth(t *testing.T) {
	w := newWorld(t)
	m, err := agent.NewMetrics()
	if err != nil {
		t.Fatal(err)
	}
	w.o.Metrics = m
	w.server.breaks(connect.NewError(connect.CodePermissionDenied, errors.New("no")))
	a := agent.New(w.o)
	h := agent.Handler(a, m)
	if _, err := a.Once(t.Context()); err == nil {
		t.Fatal("no error")
	}
	if code, _ := get(h, "/healthz/ready"); code != http.StatusServiceUnavailable {
		t.Error("ready without a token:", code)
	}
	w.server.breaks(nil)
	if _, err := a.Once(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/healthz/ready", "/healthz/live"} {
		if code, body := get(h, path); code != http.StatusOK {
			t.Error(path, code, body)
		}
	}
	_, text := get(h, "/metrics")
	for _, want := range []string{
		`zonemint_agent_failures_total{kind="denied"} 1`, `zonemint_agent_failures_total{kind="hook"} 0`,
		`zonemint_agent_renewals_total{outcome="ok"} 1`, `zonemint_agent_renewals_total{outcome="failed"} 1`,
		"zonemint_agent_token_expiry_timestamp_seconds 1", "zonemint_agent_token_remaining_seconds 3",
		"zonemint_agent_renewed_timestamp_seconds 1", "zonemint_agent_clock_offset_seconds 0",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the metrics lack %q", want)
		}
	}
	if strings.Contains(text, "jti-1") || strings.Contains(text, "east") {
		t.Error("the metrics have identifiers")
	}
	if strings.Contains(w.log.String(), w.has(t)) {
		t.Error("the log has the token")
	}
}

func get(h http.Handler, path string) (int, string) {
	r := httptest.NewRecorder()
	h.ServeHTTP(r, httptest.NewRequest(http.MethodGet, path, nil))
	return r.Code, r.Body.String()
}
