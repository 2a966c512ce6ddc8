package command

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
)

// A credential is for the server that was named, not for one that an answer names.
func TestRedirectsAreNotFollowed(t *testing.T) {
	t.Parallel()
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("%s got %s, Authorization %q", r.Host, r.URL, r.Header.Get("Authorization"))
	}))
	defer elsewhere.Close()
	for _, status := range []int{301, 302, 303, 307, 308} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL+"/x?secret", status)
		}))
		defer s.Close()
		file := filepath.Join(t.TempDir(), "token")
		if err := os.WriteFile(file, []byte("zmt_x"), 0o600); err != nil {
			t.Fatal(err)
		}
		conn := connection{addr: s.URL, tokenFile: file, timeout: 10 * time.Second}
		c, err := conn.open(io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		_, call := c.callers.WhoAmI(t.Context(), &pb.WhoAmIRequest{})
		_, document := c.web.get(t.Context(), "/keysets/zone/revocations", "text/plain")
		for _, err := range []error{call, document} {
			if err == nil || exitCode(err) != exitUsage {
				t.Fatalf("%d: %v", status, err)
			}
			host := strings.TrimPrefix(elsewhere.URL, "http://")
			if text := err.Error(); !strings.Contains(text, http.StatusText(status)) || !strings.Contains(text, host) || strings.Contains(text, "secret") {
				t.Errorf("%d: %s", status, text)
			}
		}
	}
}
