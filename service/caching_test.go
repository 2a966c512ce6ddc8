package service_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/zonemint/zonemint/service"
)

// cacheControl asks for the JWK set and takes its Cache-Control apart.
func (s *server) cacheControl(t *testing.T, method string, h http.Header) (age, stale time.Duration) {
	t.Helper()
	resp, _ := s.do(t, method, "/keysets/zone/jwks.json", "", h)
	text := resp.Header.Get("Cache-Control")
	var a, b int
	if n, err := fmt.Sscanf(text, "public, max-age=%d, stale-if-error=%d", &a, &b); err != nil && n != 1 {
		t.Fatalf("%d, Cache-Control: %s", resp.StatusCode, text)
	}
	return time.Duration(a) * time.Second, time.Duration(b) * time.Second
}

// Max-age is at most what is left of the lease, whatever else is allowed, and
// together with stale-if-error at most what the service says of itself.
func TestCachingIsBoundedByTheLease(t *testing.T) {
	w := newWorld(t)
	cfg, clock := w.skewed(0)
	cfg.LeaseTTL, cfg.MaxAge, cfg.StaleIfError = time.Hour, 30*time.Minute, 10*time.Minute
	began := time.Now()
	s := w.start(t, cfg, zoneKeyset())
	w.engine.muffle()
	if got := s.CacheFor(); got != 40*time.Minute {
		t.Errorf("CacheFor is %s", got)
	}
	first, _ := s.get(t, "/keysets/zone/jwks.json")
	for passed, most := range map[time.Duration]time.Duration{
		0: 30 * time.Minute, 20 * time.Minute: 30 * time.Minute, 50 * time.Minute: 10 * time.Minute, 57 * time.Minute: 3 * time.Minute,
	} {
		clock.set(passed)
		different := map[time.Duration]bool{}
		for range 50 {
			for method, h := range map[string]http.Header{"GET": nil, "HEAD": {"If-None-Match": {first.Header.Get("Etag")}}} {
				age, stale := s.cacheControl(t, method, h)
				least := (most-time.Since(began))/2 - 2*time.Second // the test takes some of the lease
				if age > most || age < least || stale != cfg.StaleIfError {
					t.Errorf("%s into the lease: max-age %s, stale-if-error %s", passed, age, stale)
				}
				different[age] = true
			}
		}
		if len(different) < 3 {
			t.Errorf("%s into the lease: all come back together", passed)
		}
	}
	clock.set(time.Hour)
	if age, stale := s.cacheControl(t, "GET", nil); age != 0 || stale != 0 {
		t.Errorf("without a lease: max-age %s, stale-if-error %s", age, stale)
	}
}

func TestCacheFor(t *testing.T) {
	for _, c := range []struct{ lease, age, stale, want time.Duration }{
		{0, 0, 0, 30 * time.Second}, {0, 0, 5 * time.Minute, 330 * time.Second}, {time.Hour, 0, time.Minute, 6 * time.Minute},
		{0, 10 * time.Second, 0, 10 * time.Second},
	} {
		if got := (service.Config{LeaseTTL: c.lease, MaxAge: c.age, StaleIfError: c.stale}).CacheFor(); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
}
