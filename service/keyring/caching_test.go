package keyring_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/zonemint/zonemint/service/keyring"
	"github.com/zonemint/zonemint/store"
)

// ages serves a document many times and returns how often it had which max-age.
func ages(t *testing.T, caching *keyring.Caching, d *keyring.Document, method string, bound time.Duration, suffix string, match ...string) map[int]int {
	t.Helper()
	seen := map[int]int{}
	for range 2000 {
		text := serveBy(caching, d, method, bound, match...).Header.Get("Cache-Control")
		var age int
		if _, err := fmt.Sscanf(text, "public, max-age=%d", &age); err != nil || text != fmt.Sprintf("public, max-age=%d%s", age, suffix) {
			t.Fatalf("Cache-Control: %s", text)
		}
		seen[age]++
	}
	return seen
}

func TestMaxAge(t *testing.T) {
	d := document(t)
	tag := serve(d, http.MethodGet, 0).Header.Get("Etag")
	caching := keyring.NewCaching(5*time.Minute+time.Second/2, 90500*time.Millisecond)
	const stale = ", stale-if-error=90"
	for _, c := range []struct {
		bound       time.Duration
		least, most int
		suffix      string
	}{
		{0, 0, 0, ""}, {-time.Hour, 0, 0, ""}, {999 * time.Millisecond, 0, 0, ""},
		{time.Second, 1, 1, stale}, {1999 * time.Millisecond, 1, 1, stale}, {2 * time.Second, 1, 2, stale}, {3 * time.Second, 2, 3, stale},
		{27 * time.Second, 14, 27, stale}, {5 * time.Minute, 150, 300, stale}, {time.Hour, 150, 300, stale},
	} {
		for method, match := range map[string][]string{http.MethodGet: nil, http.MethodHead: nil, "GET that is not modified": {tag}} {
			method, _, _ = strings.Cut(method, " ")
			seen := ages(t, caching, d, method, c.bound, c.suffix, match...)
			for age, n := range seen {
				if age < c.least || age > c.most {
					t.Errorf("%s %s: max-age=%d", method, c.bound, age)
				}
				if fair := 2000 / (c.most - c.least + 1); n > 4*fair+20 {
					t.Errorf("%s %s: max-age=%d comes %d times, about %d is fair", method, c.bound, age, n, fair)
				}
			}
			if want := c.most - c.least + 1; len(seen) < want*9/10 {
				t.Errorf("%s %s: %d different ages, want about %d", method, c.bound, len(seen), want)
			}
		}
	}
}

func TestNoStaleIfError(t *testing.T) {
	ages(t, plain(), document(t), http.MethodGet, time.Minute, "")
}

func TestServingAllocatesNothing(t *testing.T) {
	d, caching := document(t), keyring.NewCaching(time.Minute, time.Minute)
	tag := serve(d, http.MethodGet, 0).Header.Get("Etag")
	for _, match := range []string{"", tag} {
		r := httptest.NewRequest(http.MethodGet, "/x", nil)
		if match != "" {
			r.Header.Set("If-None-Match", match)
		}
		w := nowhere{http.Header{}}
		if n := testing.AllocsPerRun(1000, func() { d.ServeFor(w, r, caching, 50*time.Second) }); n != 0 {
			t.Errorf("%v allocations for a request with If-None-Match: %q", n, match)
		}
	}
}

func TestNobodyKeepsASetWhileNoneOfItsKeysSigns(t *testing.T) {
	for want, states := range map[time.Duration][][]store.State{
		0: {
			{store.StatePublished, store.StateCreating}, {store.StatePublished, store.StatePublished},
			{store.StateRetiring, store.StatePublished}, {},
		},
		time.Minute: {{store.StateActive}, {store.StateRetiring, store.StateActive, store.StatePublished}},
	} {
		for _, s := range states {
			w := newWorld(t)
			w.keyset(t, "zone", s...)
			if got := get(t, w.refresh(t), "zone").FreshFor(time.Now(), time.Minute); got != want {
				t.Errorf("a set of keys that are %v may be kept for %s, want %s", s, got, want)
			}
		}
	}
}

func TestPlannedChanges(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	w := newWorld(t)
	w.keyset(t, "zone", store.StateActive, store.StateRetiring, store.StateRetiring, store.StateRetiring)
	for i, until := range []time.Duration{0, time.Hour, 20 * time.Second, -time.Hour} {
		w.rows.Keys[i].Imported = i > 0
		w.rows.Keys[i].TrustedUntil = now.Add(until)
	}
	w.keyset(t, "user", store.StateActive)
	first := w.refresh(t)
	zone := get(t, first, "zone")
	for _, c := range []struct{ passed, most, want time.Duration }{
		{0, time.Hour, 20 * time.Second}, {0, 10 * time.Second, 10 * time.Second}, {19 * time.Second, time.Hour, time.Second},
		// It has passed and nothing came of it: the next one counts.
		{20 * time.Second, time.Minute, time.Minute}, {20 * time.Second, 2 * time.Hour, time.Hour - 20*time.Second},
		{time.Hour, time.Minute, time.Minute},
	} {
		if got := zone.FreshFor(now.Add(c.passed), c.most); got != c.want {
			t.Errorf("after %s: %s of at most %s, want %s", c.passed, got, c.most, c.want)
		}
	}
	if next := get(t, first, "user").NextChange(now); !next.IsZero() {
		t.Errorf("nothing is planned, but for %s", next)
	}

	w.Planned = func(ks store.Keyset, keys []store.SigningKey) []time.Time {
		if ks.Name != "zone" || len(keys) != 4 {
			return nil
		}
		return []time.Time{now.Add(time.Minute), now.Add(5 * time.Second)}
	}
	r := w.refresh(t)
	if got := get(t, r, "zone").NextChange(now); !got.Equal(now.Add(5 * time.Second)) {
		t.Errorf("the next change is at %s", got)
	}
	if next := get(t, r, "user").NextChange(now); !next.IsZero() {
		t.Errorf("nothing is planned, but for %s", next)
	}
}
