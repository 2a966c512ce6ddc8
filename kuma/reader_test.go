package kuma_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/zonemint/zonemint/kuma"
	"github.com/zonemint/zonemint/token"
)

// listing serves a list in pages of two, with links to another host, and the
// secrets in it.
func listing(t *testing.T, path string, names ...string) http.Handler {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
		from := 0
		_, _ = fmt.Sscan(r.URL.Query().Get("offset"), &from)
		to := min(from+2, len(names))
		page := map[string]any{"total": len(names), "next": nil}
		var items []map[string]string
		for _, n := range names[from:to] {
			items = append(items, map[string]string{"type": "GlobalSecret", "name": n, "data": "bm90IHRoaXM="})
		}
		page["items"] = items
		if to < len(names) {
			page["next"] = fmt.Sprintf("http://elsewhere.example.com%s?offset=%d&size=2", path, to)
		}
		_ = json.NewEncoder(w).Encode(page)
	})
	mux.HandleFunc("GET "+path+"/{name}", func(w http.ResponseWriter, r *http.Request) {
		name := r.PathValue("name")
		if name == "gone" {
			http.NotFound(w, r)
			return
		}
		_, _ = fmt.Fprintf(w, `{"type":"GlobalSecret","name":%q,"data":%q}`, name, base64.StdEncoding.EncodeToString([]byte("data of "+name)))
	})
	return mux
}

func reader(t *testing.T, h http.Handler) *kuma.Reader {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	r, err := kuma.NewReader(s.URL+"/", kuma.ReaderOptions{Token: "secret", Transport: s.Client().Transport})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestReaderReadsWhatIsWanted(t *testing.T) {
	t.Parallel()
	for mesh, path := range map[string]string{"": "/global-secrets", "default": "/meshes/default/secrets"} {
		var asked atomic.Pointer[[]string]
		asked.Store(&[]string{})
		h := listing(t, path, "a", "unwanted", "b", "c")
		r := reader(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if got := req.Header.Get("Authorization"); got != "Bearer secret" {
				t.Errorf("Authorization is %q", got)
			}
			paths := append(slices.Clone(*asked.Load()), req.URL.Path)
			asked.Store(&paths)
			h.ServeHTTP(w, req)
		}))
		secrets, err := r.Secrets(t.Context(), mesh, func(ref kuma.Ref) bool { return ref.Mesh == mesh && ref.Name != "unwanted" })
		var got []string
		for _, s := range secrets {
			got = append(got, fmt.Sprintf("%s/%s=%s", s.Mesh, s.Name, s.Data))
		}
		if want := []string{mesh + "/a=data of a", mesh + "/b=data of b", mesh + "/c=data of c"}; err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %q, %v", mesh, got, err)
		}
		if slices.Contains(*asked.Load(), path+"/unwanted") {
			t.Error("what is not wanted was read")
		}
	}
}

func TestReaderLeavesOutNothingThatIsListed(t *testing.T) {
	t.Parallel()
	_, err := reader(t, listing(t, "/global-secrets", "a", "gone")).Secrets(t.Context(), "", func(kuma.Ref) bool { return true })
	if status, ok := errors.AsType[*kuma.StatusError](err); !ok || status.Code != 404 {
		t.Errorf("error is %v", err)
	}
}

func TestReaderFollowsNobody(t *testing.T) {
	t.Parallel()
	var elsewhere atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	t.Cleanup(other.Close)
	r := reader(t, http.RedirectHandler(other.URL, http.StatusTemporaryRedirect))
	_, err := r.Secrets(t.Context(), "", func(kuma.Ref) bool { return true })
	if status, ok := errors.AsType[*kuma.StatusError](err); !ok || status.Code != 307 || !strings.Contains(err.Error(), "not followed") {
		t.Errorf("error is %v", err)
	}
	if _, err := r.ProofToken(t.Context(), token.ProfileZone, ""); err == nil {
		t.Error("a redirect is a token")
	}
	if n := elsewhere.Load(); n > 0 {
		t.Errorf("the redirect was followed %d times", n)
	}
}

func TestReaderRefuses(t *testing.T) {
	t.Parallel()
	answers := func(code int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(code)
			_, _ = io.WriteString(w, body)
		}
	}
	for name, c := range map[string]struct {
		h    http.Handler
		says string
	}{
		"denied":      {answers(403, `{"status":403,"title":"Access Denied","detail":"user \"x\"\u0007"}`), `403, Access Denied (user "x"); reading secrets takes`},
		"unknown":     {answers(401, "<html>"), "401, Unauthorized"},
		"not JSON":    {answers(200, "c2VjcmV0"), "not what a control plane says"},
		"in circles":  {answers(200, `{"items":[],"next":"http://x/?offset=0"}`), "does not get on"},
		"no position": {answers(200, `{"items":[],"next":"http://x/"}`), "does not get on"},
		"error":       {answers(500, ""), "500, Internal Server Error"},
	} {
		_, err := reader(t, c.h).Secrets(t.Context(), "", func(kuma.Ref) bool { return true })
		if err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "c2Vj") || strings.Contains(err.Error(), "\a") {
			t.Errorf("%s: error is %v", name, err)
		}
	}
	for _, addr := range []string{"", "kuma.example.com", "ftp://x", "http://u:p@x", "http://x?a=b"} {
		if _, err := kuma.NewReader(addr, kuma.ReaderOptions{}); err == nil || strings.Contains(err.Error(), "u:p") {
			t.Errorf("%s: error is %v", addr, err)
		}
	}
}

func TestReaderReadsNoMoreThanASecret(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	mux.Handle("GET /global-secrets", listing(t, "/global-secrets", "a"))
	mux.HandleFunc("GET /global-secrets/a", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"data":"`+strings.Repeat("YWFh", 2<<20)+`"}`)
	})
	_, err := reader(t, mux).Secrets(t.Context(), "", func(kuma.Ref) bool { return true })
	if err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("error is %v", err)
	}
}

// A proof must be of no use to anybody who gets hold of it.
func TestProofTokensAreForNobody(t *testing.T) {
	t.Parallel()
	for profile, want := range map[token.Profile]string{
		token.ProfileZone:      `POST /tokens/zone {"scope":[],"validFor":"1m","zone":"proof of possession for zonemint"}`,
		token.ProfileDataplane: `POST /tokens/dataplane {"mesh":"default","name":"proof of possession for zonemint","validFor":"1m"}`,
		token.ProfileUser:      `POST /tokens/user {"groups":[],"name":"proof of possession for zonemint","validFor":"1m"}`,
	} {
		got := make(chan string, 1)
		r := reader(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			got <- fmt.Sprintf("%s %s %s", r.Method, r.URL.Path, body)
			if err != nil || r.Header.Get("Content-Type") != "application/json" {
				t.Errorf("content type %q, %v", r.Header.Get("Content-Type"), err)
			}
			_, _ = io.WriteString(w, "a.b.c")
		}))
		raw, err := r.ProofToken(t.Context(), profile, "default")
		if asked := <-got; err != nil || raw != "a.b.c" || asked != want {
			t.Errorf("%s: asked %s, got %q, %v", profile, asked, raw, err)
		}
	}
	if _, err := reader(t, http.NotFoundHandler()).ProofToken(t.Context(), "other", ""); err == nil {
		t.Error("there are tokens of other profiles")
	}
}
