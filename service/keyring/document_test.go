package keyring_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/zonemint/zonemint/service/keyring"
	"github.com/zonemint/zonemint/store"
)

func document(t testing.TB) *keyring.Document {
	t.Helper()
	w := newWorld(t)
	w.keyset(t, "zone", store.StateActive, store.StatePublished)
	return get(t, w.refresh(t), "zone").Set
}

// plain is caching without stale-if-error, for up to an hour.
func plain() *keyring.Caching { return keyring.NewCaching(time.Hour, 0) }

func serve(d *keyring.Document, method string, bound time.Duration, match ...string) *http.Response {
	return serveBy(plain(), d, method, bound, match...)
}

func serveBy(caching *keyring.Caching, d *keyring.Document, method string, bound time.Duration, match ...string) *http.Response {
	r := httptest.NewRequest(method, "/x", nil)
	for _, m := range match {
		r.Header.Add("If-None-Match", m)
	}
	w := httptest.NewRecorder()
	d.ServeFor(w, r, caching, bound)
	return w.Result()
}

func TestServeDocument(t *testing.T) {
	d := document(t)
	resp := serve(d, http.MethodGet, 90*time.Second)
	body, err := io.ReadAll(resp.Body)
	if err != nil || string(body) != string(d.Bytes()) || resp.StatusCode != http.StatusOK {
		t.Errorf("%d %s %v", resp.StatusCode, body, err)
	}
	for name, want := range map[string]string{
		"Content-Type":   "application/jwk-set+json",
		"Content-Length": fmt.Sprint(len(body)), "Access-Control-Allow-Origin": "*",
	} {
		if got := resp.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	head := serve(d, http.MethodHead, time.Second)
	if body, _ := io.ReadAll(head.Body); len(body) != 0 || head.Header.Get("Etag") != resp.Header.Get("Etag") ||
		head.Header.Get("Content-Length") != resp.Header.Get("Content-Length") {
		t.Errorf("HEAD: %v, %d bytes", head.Header, len(body))
	}
}

func TestConditionalRequests(t *testing.T) {
	d := document(t)
	tag := serve(d, http.MethodGet, time.Minute).Header.Get("Etag")
	if other := serve(document(t), http.MethodGet, time.Minute).Header.Get("Etag"); other == tag || len(tag) < 10 {
		t.Fatalf("tags %s and %s", tag, other)
	}
	for name, c := range map[string]struct {
		match []string
		want  int
	}{
		"none":      {nil, 200},
		"same":      {[]string{tag}, 304},
		"weak":      {[]string{"W/" + tag}, 304},
		"list":      {[]string{`"a", ` + tag + `, "b"`}, 304},
		"two lines": {[]string{`"a"`, tag}, 304},
		"any":       {[]string{"*"}, 304},
		"other":     {[]string{`"a"`}, 200},
		"unquoted":  {[]string{tag[1 : len(tag)-1]}, 200},
		"empty":     {[]string{""}, 200},
	} {
		resp := serve(d, http.MethodGet, time.Minute, c.match...)
		body, _ := io.ReadAll(resp.Body)
		if resp.StatusCode != c.want || (c.want == 304) != (len(body) == 0) || resp.Header.Get("Etag") != tag ||
			!strings.HasPrefix(resp.Header.Get("Cache-Control"), "public, max-age=") {
			t.Errorf("%s: %d, %d bytes, %v", name, resp.StatusCode, len(body), resp.Header)
		}
	}
}

// handlers are the document's own and one that writes the same bytes and knows
// nothing of tags and ages.
func handlers(b *testing.B) map[string]http.HandlerFunc {
	d, caching := document(b), keyring.NewCaching(30*time.Second, 5*time.Minute)
	return map[string]http.HandlerFunc{
		"document": func(w http.ResponseWriter, r *http.Request) { d.ServeFor(w, r, caching, 27*time.Second) },
		"bare": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/jwk-set+json")
			_, _ = w.Write(d.Bytes())
		},
	}
}

// nowhere is a response writer without a cost of its own.
type nowhere struct{ h http.Header }

func (n nowhere) Header() http.Header         { return n.h }
func (n nowhere) Write(b []byte) (int, error) { return len(b), nil }
func (n nowhere) WriteHeader(int)             {}

func BenchmarkServe(b *testing.B) {
	for name, h := range handlers(b) {
		b.Run(name, func(b *testing.B) {
			r := httptest.NewRequest(http.MethodGet, "/x", nil)
			w := nowhere{http.Header{}}
			b.ReportAllocs()
			for b.Loop() {
				h(w, r)
			}
		})
	}
}

func BenchmarkServeLoopback(b *testing.B) {
	for name, h := range handlers(b) {
		b.Run(name, func(b *testing.B) {
			srv := httptest.NewServer(h)
			defer srv.Close()
			client := srv.Client()
			b.ReportAllocs()
			for b.Loop() {
				resp, err := client.Get(srv.URL)
				if err != nil {
					b.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
			}
		})
	}
}
