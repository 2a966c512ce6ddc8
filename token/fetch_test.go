package token_test

import (
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/zonemint/zonemint/token"
)

func TestFetchKeySetOverTLS(t *testing.T) {
	body := setBody(t, "RS256", "ES256")
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Write([]byte(body))
	}))
	defer server.Close()
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // the refused handshake below
	set, err := token.FetchKeySet(t.Context(), server.URL, token.RemoteOptions{Transport: server.Client().Transport})
	if err != nil || len(set.Keys()) != 2 {
		t.Fatalf("got %v, %v", set, err)
	}
	if _, err := token.FetchKeySet(t.Context(), server.URL, token.RemoteOptions{}); !errors.Is(err, token.ErrKeysUnavailable) {
		t.Errorf("untrusted certificate: got %v", err)
	}
	if _, err := token.FetchKeySet(t.Context(), "http://example.com", token.RemoteOptions{}); err == nil {
		t.Error("plain HTTP: accepted")
	}
}

func TestFreshness(t *testing.T) {
	const unsaid = time.Hour
	for _, c := range []struct {
		cacheControl []string
		age          string
		want         time.Duration
	}{
		{nil, "", unsaid},
		{[]string{"public"}, "", unsaid},
		{[]string{"public, max-age=60"}, "", time.Minute},
		{[]string{"public", "MAX-AGE=60"}, "", time.Minute},
		{[]string{`max-age="60"`}, "", time.Minute},
		{[]string{"max-age=60, max-age=30"}, "", 30 * time.Second},
		{[]string{"max-age=60"}, "20", 40 * time.Second},
		{[]string{"max-age=60"}, "90", 0},
		{[]string{"max-age=60"}, "junk", time.Minute},
		{nil, "20", unsaid},
		{[]string{"max-age=0"}, "", 0},
		{[]string{"max-age=-1"}, "", 0},
		{[]string{"max-age=1.5"}, "", 0},
		{[]string{"max-age"}, "", 0},
		{[]string{"max-age=60, no-cache"}, "", 0},
		{[]string{"no-store"}, "", 0},
		{[]string{"s-maxage=5"}, "", unsaid},
		{[]string{"max-age=99999999999999999999"}, "", (1<<32 - 1) * time.Second},
	} {
		h := http.Header{"Cache-Control": c.cacheControl}
		if c.age != "" {
			h.Set("Age", c.age)
		}
		if got := token.FreshForTest(h, unsaid); got != c.want {
			t.Errorf("%q, age %q: got %s, want %s", c.cacheControl, c.age, got, c.want)
		}
	}
}
