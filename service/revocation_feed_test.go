package service_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/zonemint/zonemint/store"
)

// feedPage is the feed as JSON, as a reader in another language sees it.
type feedPage struct {
	Keyset  string `json:"keyset"`
	Epoch   string `json:"epoch"`
	Seq     int64  `json:"seq"`
	Reset   bool   `json:"reset"`
	More    bool   `json:"more"`
	Revoked []struct {
		JTI string `json:"jti"`
		Exp int64  `json:"exp"`
	} `json:"revoked"`
	Lifted []string `json:"lifted"`
}

func (p feedPage) jtis() []string {
	var list []string
	for _, e := range p.Revoked {
		list = append(list, e.JTI)
	}
	return list
}

// feed requests the feed of a keyset, and what is behind it in pairs of headers.
func (s *server) feed(t testing.TB, path string, pairs ...string) (*http.Response, string) {
	t.Helper()
	h := http.Header{"Authorization": {"Bearer " + s.admin}}
	for i := 0; i < len(pairs); i += 2 {
		h.Add(pairs[i], pairs[i+1])
	}
	return s.do(t, http.MethodGet, "/keysets/"+path, "", h)
}

func (s *server) page(t testing.TB, path string) (feedPage, *http.Response) {
	t.Helper()
	resp, body := s.feed(t, path)
	var p feedPage
	if err := json.Unmarshal([]byte(body), &p); err != nil || resp.StatusCode != 200 {
		t.Fatalf("%s: %d %q, %v", path, resp.StatusCode, body, err)
	}
	if p.Revoked == nil || p.Lifted == nil {
		t.Errorf("%s: a list is null: %s", path, body)
	}
	return p, resp
}

func TestFeedOverHTTP(t *testing.T) {
	w := newWorld(t)
	s := w.start(t, w.config(), zoneAnd("dataplane/x")...)
	empty, resp := s.page(t, "zone/revocations")
	if empty.Keyset != "zone" || !empty.Reset || empty.More || empty.Seq != 0 || len(empty.Revoked) != 0 {
		t.Errorf("%+v", empty)
	}
	h := resp.Header
	if h.Get("Content-Type") != "application/json" || h.Get("Cache-Control") != "private, no-cache" || h.Get("Vary") != "Accept, Accept-Encoding" ||
		h.Get("X-Request-Id") == "" || !strings.HasPrefix(h.Get("Etag"), `W/"`) || h.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("%v", h)
	}
	s.revokeIDs(t, "zone", "a", "b", "c")
	s.revokeIDs(t, "dataplane/x", "other")
	first, _ := s.page(t, "zone/revocations?since=0&limit=2")
	if !slices.Equal(first.jtis(), []string{"a", "b"}) || !first.More || !first.Reset || first.Seq != 2 {
		t.Errorf("%+v", first)
	}
	if exp := first.Revoked[0].Exp; exp < time.Now().Unix()+3500 || exp > time.Now().Unix()+3600 {
		t.Errorf("expires at %d", exp)
	}
	second, _ := s.page(t, fmt.Sprintf("zone/revocations?since=%d&epoch=%s&limit=2", first.Seq, first.Epoch))
	if !slices.Equal(second.jtis(), []string{"c"}) || second.More || second.Reset || second.Seq != 3 {
		t.Errorf("%+v", second)
	}
	s.lift(t, "zone", "a")
	third, _ := s.page(t, fmt.Sprintf("zone/revocations?since=%d&epoch=%s", second.Seq, first.Epoch))
	if len(third.Revoked) != 0 || !slices.Equal(third.Lifted, []string{"a"}) || third.Seq != 4 {
		t.Errorf("%+v", third)
	}
	if all, _ := s.page(t, "zone/revocations"); !slices.Equal(all.jtis(), []string{"b", "c"}) || len(all.Lifted) != 0 || !all.Reset {
		t.Errorf("%+v", all)
	}
	if other, _ := s.page(t, "zone/revocations?since=4&epoch="+uuid.NewString()); !other.Reset || len(other.Revoked) != 2 {
		t.Errorf("%+v", other)
	}
	for _, path := range []string{"dataplane/x/revocations", "dataplane%2fx/revocations"} {
		if p, _ := s.page(t, path); p.Keyset != "dataplane/x" || !slices.Equal(p.jtis(), []string{"other"}) {
			t.Errorf("%+v", p)
		}
	}
}

func TestFeedNotModified(t *testing.T) {
	w := newWorld(t)
	s := w.start(t, w.config(), zoneKeyset())
	for _, accept := range []string{"application/json", "text/plain"} {
		get := func(pairs ...string) *http.Response {
			resp, body := s.feed(t, "zone/revocations", append(pairs, "Accept", accept)...)
			if resp.StatusCode == 304 && (body != "" || resp.Header.Get("Cache-Control") != "private, no-cache" || resp.Header.Get("Vary") == "") {
				t.Errorf("%q %v", body, resp.Header)
			}
			return resp
		}
		for range 2 { // with an empty feed, and another one
			tag := get().Header.Get("Etag")
			strong := strings.TrimPrefix(tag, "W/")
			for _, v := range []string{tag, strong, `"x", ` + tag, "*", tag + `,"y"`} {
				if resp := get("If-None-Match", v); resp.StatusCode != 304 || resp.Header.Get("Etag") != tag {
					t.Errorf("%s, %s: %d", accept, v, resp.StatusCode)
				}
			}
			for _, v := range []string{`"x"`, "", strings.Trim(strong, `"`), `"` + strong, strings.Replace(tag, ".0.", ".1.", 1)} {
				if resp := get("If-None-Match", v); resp.StatusCode != 200 {
					t.Errorf("%s, %s: %d", accept, v, resp.StatusCode)
				}
			}
			s.revokeIDs(t, "zone", accept+uuid.NewString())
			if resp := get("If-None-Match", tag); resp.StatusCode != 200 || resp.Header.Get("Etag") == tag {
				t.Errorf("%s: %d after a revocation", accept, resp.StatusCode)
			}
		}
	}
	json, text := must2(s.feed(t, "zone/revocations")).Header.Get("Etag"), must2(s.feed(t, "zone/revocations", "Accept", "text/plain")).Header.Get("Etag")
	if json == text {
		t.Error("two forms have one tag")
	}
	// A page that is not the last one is never the newest.
	resp := must2(s.feed(t, "zone/revocations?limit=1"))
	if again := must2(s.feed(t, "zone/revocations?limit=1", "If-None-Match", resp.Header.Get("Etag"))); again.StatusCode != 200 {
		t.Errorf("%d", again.StatusCode)
	}
}

func must2(r *http.Response, _ string) *http.Response { return r }

// Kuma's revocation secrets, byte for byte.
func TestFeedAsText(t *testing.T) {
	w := newWorld(t)
	s := w.start(t, w.config(), zoneKeyset())
	list := func() string {
		t.Helper()
		resp, body := s.feed(t, "zone/revocations", "Accept", "text/plain")
		if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/plain; charset=utf-8" {
			t.Errorf("%d %v", resp.StatusCode, resp.Header)
		}
		return body
	}
	if got := list(); got != "" {
		t.Errorf("%q, want nothing at all: an empty entry would revoke tokens without a jti", got)
	}
	s.revokeIDs(t, "zone", "01a1fc97-2aca-7751-8696-0a0a6e52e2e2")
	if got := list(); got != "01a1fc97-2aca-7751-8696-0a0a6e52e2e2" {
		t.Errorf("%q", got)
	}
	// A comma or a line break would make other entries of one; what has a space
	// within is one.
	s.revokeIDs(t, "zone", "b,c", "d\n", "e f", "g")
	s.revokeIDs(t, "zone", "lifted")
	s.lift(t, "zone", "lifted")
	if got := list(); got != "01a1fc97-2aca-7751-8696-0a0a6e52e2e2,e f,g" {
		t.Errorf("%q", got)
	}
	if !strings.Contains(w.log.String(), "left out of a list") {
		t.Error("nothing is said of what was left out")
	}
	soon := []store.Revoke{{JTI: "short", ExpiresAt: time.Now().Add(1200 * time.Millisecond)}}
	must(s.db.Revoke(t.Context(), s.keysetID(t, "zone"), soon, "", store.Actor{Name: "cli/test"}))
	if got := list(); !strings.HasSuffix(got, ",g,short") {
		t.Errorf("%q", got)
	}
	time.Sleep(1300 * time.Millisecond)
	if got := list(); !strings.HasSuffix(got, ",g,short") {
		t.Errorf("%q: a verifier with leeway still accepts what has only just expired", got)
	}
}

// A list in several pages, compressed or not.
func TestFeedLong(t *testing.T) {
	w := newWorld(t)
	s := w.start(t, w.config(), zoneKeyset())
	const many = 12000
	want := make([]string, many)
	for i := range want {
		want[i] = uuid.NewString()
	}
	s.revokeIDs(t, "zone", want...)
	for _, encoding := range []string{"identity", "gzip"} {
		resp, body := s.feed(t, "zone/revocations", "Accept", "text/plain", "Accept-Encoding", encoding)
		if got := (resp.Header.Get("Content-Encoding") == "gzip"); got != (encoding != "identity") {
			t.Errorf("%s: %v", encoding, resp.Header)
		}
		if text := unzip(t, resp, body); text != strings.Join(want, ",") {
			t.Errorf("%s: %d bytes", encoding, len(text))
		}
	}
	resp, body := s.feed(t, "zone/revocations?limit=50000", "Accept-Encoding", "gzip")
	var p feedPage
	if err := json.Unmarshal([]byte(unzip(t, resp, body)), &p); err != nil || !slices.Equal(p.jtis(), want) || p.More || len(body) > 60*many {
		t.Errorf("%d entries in %d bytes, %v", len(p.Revoked), len(body), err)
	}
	if p, _ := s.page(t, "zone/revocations"); len(p.Revoked) != 10000 || !p.More {
		t.Errorf("%d by default", len(p.Revoked))
	}
	resp, body = s.feed(t, fmt.Sprintf("zone/revocations?since=%d&epoch=%s", p.Seq, p.Epoch), "Accept-Encoding", "gzip")
	if resp.Header.Get("Content-Encoding") != "" || resp.ContentLength != int64(len(body)) {
		t.Errorf("a tiny answer: %v", resp.Header)
	}
	head, body := s.do(t, http.MethodHead, "/keysets/zone/revocations", "", http.Header{"Authorization": {"Bearer " + s.admin}, "Accept": {"text/plain"}})
	if head.StatusCode != 200 || body != "" || head.Header.Get("Etag") == "" {
		t.Errorf("HEAD: %d %v", head.StatusCode, head.Header)
	}
}

func unzip(t testing.TB, resp *http.Response, body string) string {
	t.Helper()
	if resp.Header.Get("Content-Encoding") != "gzip" {
		return body
	}
	return string(must(io.ReadAll(must(gzip.NewReader(strings.NewReader(body))))))
}

func TestFeedRefuses(t *testing.T) {
	w := newWorld(t)
	s := w.start(t, w.config(), zoneAnd("other")...)
	token := func(roles []string, keysets ...string) string {
		return s.apiToken(t, store.APIToken{Name: "x", Roles: roles, Keysets: keysets})
	}
	narrow, issuer, verifier := token([]string{"verifier"}, "other"), token([]string{"issuer", "key-operator"}), token([]string{"verifier"})
	for _, c := range []struct {
		method, path, token, accept string
		status                      int
		text                        string
	}{
		{"GET", "zone/revocations", "", "", 401, "unauthenticated"},
		{"GET", "zone/revocations", "zmt_x", "", 401, "unauthenticated"},
		{"GET", "zone/revocations", issuer, "", 403, "needs one of the roles"},
		{"GET", "zone/revocations", narrow, "", 403, "not for keyset"},
		{"GET", "nosuch/revocations", narrow, "", 403, "not for keyset"},
		{"GET", "nosuch/revocations", verifier, "", 404, "no such keyset"},
		{"GET", "nosuch/revocations", verifier, "text/plain", 404, "no such keyset"},
		{"GET", "/revocations", verifier, "", 404, "no such keyset"},
		{"GET", "other/revocations", narrow, "", 200, ""},
		{"HEAD", "zone/revocations", "", "", 401, ""},
		{"POST", "zone/revocations", verifier, "", 405, "method not allowed"},
		{"GET", "zone/revocations?since=x", verifier, "", 400, "since: is not a position"},
		{"GET", "zone/revocations?since=-1", verifier, "", 400, "since: is not a position"},
		{"GET", "zone/revocations?since=1&since=2", verifier, "", 400, "each of them once"},
		{"GET", "zone/revocations?Since=1", verifier, "", 400, "may have since"},
		{"GET", "zone/revocations?epoch=x", verifier, "", 400, "epoch: is not one"},
		{"GET", "zone/revocations?limit=0", verifier, "", 400, "limit: must be"},
		{"GET", "zone/revocations?limit=50001", verifier, "", 400, "limit: must be"},
		{"GET", "zone/revocations?limit=", verifier, "", 400, "limit: must be"},
		{"GET", "zone/revocations?a=%zz", verifier, "", 400, "cannot be read"},
		{"GET", "zone/revocations?since=1", verifier, "text/plain", 400, "always whole"},
	} {
		h := http.Header{}
		if c.token != "" {
			h.Set("Authorization", "Bearer "+c.token)
		}
		if c.accept != "" {
			h.Set("Accept", c.accept)
		}
		resp, body := s.do(t, c.method, "/keysets/"+c.path, "", h)
		if resp.StatusCode != c.status || !strings.Contains(body, c.text) {
			t.Errorf("%s %s: %d %s, want %d %s", c.method, c.path, resp.StatusCode, body, c.status, c.text)
		}
		if c.status == 200 || c.status == 405 {
			continue
		}
		if resp.Header.Get("Content-Type") != "application/json" || resp.Header.Get("Cache-Control") != "no-store" || resp.Header.Get("X-Request-Id") == "" || resp.Header.Get("Etag") != "" {
			t.Errorf("%s %s: %v", c.method, c.path, resp.Header)
		}
		if id := resp.Header.Get("X-Request-Id"); !strings.Contains(w.log.String(), id) {
			t.Errorf("%s %s: the log does not have %s", c.method, c.path, id)
		}
	}
}

func TestAcceptHeaders(t *testing.T) {
	s := newTestServer(t)
	s.revokeIDs(t, "zone", "a")
	for accept, text := range map[string]bool{
		"": false, "*/*": false, "application/json": false, "text/plain": true, "TEXT/Plain": true, "text/*": true,
		"text/plain, */*": true, "text/plain;q=0.5, application/json": false, "text/plain, application/json;q=0.9": true,
		"text/plain, application/json": false, "application/json;q=0, */*": true, "text/plain;q=0": false, "*/*;q=0.1, text/plain;q=0.2": true,
		"text/html, application/xhtml+xml": false, "text/plain; charset=utf-8": true, "text/plain;q=2": false, "garbage;;;": false, "text/plain;q=x, text/*;q=0": false,
	} {
		resp, body := s.feed(t, "zone/revocations", "Accept", accept)
		if got := body == "a"; resp.StatusCode != 200 || got != text {
			t.Errorf("%q: %d %q", accept, resp.StatusCode, body)
		}
	}
}

func TestAcceptEncodingHeaders(t *testing.T) {
	s := newTestServer(t)
	var jtis []string
	for range 100 {
		jtis = append(jtis, uuid.NewString())
	}
	s.revokeIDs(t, "zone", jtis...)
	for encoding, want := range map[string]bool{
		"": false, "identity": false, "br": false, "gzip": true, "GZIP": true, "x-gzip": true, "gzip;q=0.1, br": true, "*": true,
		"gzip;q=0": false, "gzip;q=0, *": false, "*;q=0": false, "gzip;q=0.000": false, "identity;q=0, gzip": true,
	} {
		resp, body := s.feed(t, "zone/revocations", "Accept", "text/plain", "Accept-Encoding", encoding)
		if got := resp.Header.Get("Content-Encoding") == "gzip"; got != want || unzip(t, resp, body) != strings.Join(jtis, ",") {
			t.Errorf("%q: %v", encoding, resp.Header)
		}
	}
}

// failing makes the reads of revocations fail after a number of them.
type failing struct {
	store.Engine
	left atomic.Int64
}

func (f *failing) View(ctx context.Context, fn func(store.Tx) error) error {
	return f.Engine.View(ctx, func(tx store.Tx) error { return fn(failingTx{tx, f}) })
}

type failingTx struct {
	store.Tx
	f *failing
}

func (tx failingTx) RevocationsAfter(ctx context.Context, keyset uuid.UUID, seq int64, lifted bool, limit int) ([]store.Revocation, error) {
	if tx.f.left.Add(-1) < 0 {
		return nil, fmt.Errorf("%w: %s", store.ErrUnavailable, canary)
	}
	return tx.Tx.RevocationsAfter(ctx, keyset, seq, lifted, limit)
}

// A list that is cut off must not look like a short one: what is missing in it
// would be revoked no more.
func TestListIsWholeOrBroken(t *testing.T) {
	w := newWorld(t)
	f := &failing{Engine: w.engine.Engine}
	f.left.Store(1 << 40)
	w.engine.Engine = f
	s := w.start(t, w.config(), zoneKeyset())
	jtis := make([]string, 12000)
	for i := range jtis {
		jtis[i] = uuid.NewString()
	}
	s.revokeIDs(t, "zone", jtis...)
	h2 := *s
	for pages, want := range map[int64]int{0: 503, 1: 200, 2: 200} {
		for _, client := range []*http.Client{http.DefaultClient, h2.client} {
			for _, encoding := range []string{"identity", "gzip"} {
				f.left.Store(pages)
				req := must(http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+"/keysets/zone/revocations", nil))
				req.Header = http.Header{"Authorization": {"Bearer " + s.admin}, "Accept": {"text/plain"}, "Accept-Encoding": {encoding}}
				resp, err := client.Do(req)
				if err != nil {
					if want == 503 {
						t.Error(err)
					}
					continue // cut off before anything was sent
				}
				var b bytes.Buffer
				_, err = b.ReadFrom(resp.Body)
				_ = resp.Body.Close()
				if resp.StatusCode != want || (err == nil) != (want == 503) || strings.Contains(b.String(), canary) {
					t.Errorf("%s after %d pages, %s: %d, %d bytes, %v", resp.Proto, pages, encoding, resp.StatusCode, b.Len(), err)
				}
				if errors.Is(err, context.Canceled) {
					t.Error(err)
				}
			}
		}
	}
	f.left.Store(1 << 40)
}

func TestFeedWithoutDatabase(t *testing.T) {
	w := newWorld(t)
	s := w.start(t, w.config(), zoneKeyset())
	s.engine.cut()
	resp, body := s.feed(t, "zone/revocations")
	if resp.StatusCode != 503 || strings.Contains(body, canary) {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
}
