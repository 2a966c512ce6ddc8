package gcpkms_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zonemint/zonemint/backends/gcpkms"
	"github.com/zonemint/zonemint/integration/gcpkmsdouble"
	"github.com/zonemint/zonemint/signer"
)

// tokenServer is a metadata server, a token server and one for impersonation.
type tokenServer struct {
	*httptest.Server
	double *gcpkmsdouble.Server

	mu     sync.Mutex
	asked  map[string]int
	status int           // of the answer; 0 for a token
	body   string        // instead of a token
	fails  string        // the path that status and body are for; empty for all
	until  chan struct{} // answers wait for this, unless it is nil
	scopes string
}

func startTokenServer(t *testing.T, d *gcpkmsdouble.Server) *tokenServer {
	t.Helper()
	s := &tokenServer{double: d, asked: map[string]int{}}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *tokenServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.asked[r.URL.Path]++
	status, body, until := s.status, s.body, s.until
	if s.fails != "" && !strings.HasSuffix(r.URL.Path, s.fails) {
		status, body = 0, ""
	}
	if r.Header.Get("Metadata-Flavor") == "Google" {
		s.scopes = r.URL.Query().Get("scopes")
	}
	s.mu.Unlock()
	if until != nil {
		select {
		case <-until:
		case <-r.Context().Done():
			return
		}
	}
	if body == "" && status == 0 {
		text, _ := json.Marshal(map[string]any{
			"access_token": s.double.Issue(), "token_type": "Bearer", "expires_in": 3600, "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
			"accessToken": s.double.Issue(), "expireTime": time.Now().Add(time.Hour).Format(time.RFC3339),
		})
		body = string(text)
	}
	if status == -1 {
		panic(http.ErrAbortHandler)
	}
	if status != 0 {
		w.WriteHeader(status)
	}
	_, _ = w.Write([]byte(body))
}

// calls returns how many requests there were.
func (s *tokenServer) calls() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, of := range s.asked {
		n += of
	}
	return n
}

func (s *tokenServer) hold() (release func()) {
	until := make(chan struct{})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.until = until
	return sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.until = nil
		close(until)
	})
}

// ambient are the settings of a backend that has to find its credential by itself, where there
// are no files and the metadata server is at host.
func ambient(t *testing.T, d *gcpkmsdouble.Server, host string) gcpkms.Options {
	t.Helper()
	o, _ := secure(t, d)
	o.CredentialsFile = ""
	t.Setenv("HOME", t.TempDir())
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", "")
	t.Setenv("GCE_METADATA_HOST", host)
	return o
}

func TestTheMetadataServersToken(t *testing.T) {
	d := gcpkmsdouble.Start(t, gcpkmsdouble.Options{TLS: true})
	s := startTokenServer(t, d)
	b := open(t, ambient(t, d, s.Listener.Addr().String()))
	for range 3 {
		if err := find(t.Context(), b); err != nil {
			t.Error(err)
		}
	}
	if n := s.calls(); n != 1 || !strings.Contains(s.scopes, "https://www.googleapis.com/auth/cloudkms") {
		t.Errorf("%d requests for a token, for %q", n, s.scopes)
	}
}

// Whoever waits for a token leaves when its context ends, though another one waits on.
func TestACallLeavesWhileATokenIsFetched(t *testing.T) {
	d := gcpkmsdouble.Start(t, gcpkmsdouble.Options{TLS: true})
	s := startTokenServer(t, d)
	release := s.hold()
	defer release()
	b := open(t, ambient(t, d, s.Listener.Addr().String()))
	first := make(chan error, 1)
	go func() { first <- find(t.Context(), b) }()
	await(t, func() bool { return s.calls() > 0 })
	ctx, cancel := context.WithTimeout(t.Context(), 600*time.Millisecond)
	defer cancel()
	if err := find(ctx, b); signer.CodeOf(err) != signer.Unavailable || ctx.Err() == nil {
		t.Errorf("%v", err)
	}
	select {
	case err := <-first:
		t.Errorf("the first call was not to end yet: %v", err)
	default:
	}
	release()
	if err := <-first; err != nil {
		t.Error(err)
	}
	if n := s.calls(); n != 1 {
		t.Errorf("%d requests for a token", n)
	}
}

// Closing does not wait for a token server that hangs.
func TestClosingWhileATokenIsFetched(t *testing.T) {
	d := gcpkmsdouble.Start(t, gcpkmsdouble.Options{TLS: true})
	s := startTokenServer(t, d)
	defer s.hold()()
	b := open(t, ambient(t, d, s.Listener.Addr().String()))
	done := make(chan error, 1)
	go func() { done <- find(t.Context(), b) }()
	await(t, func() bool { return s.calls() > 0 })
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if err := <-done; signer.CodeOf(err) != signer.Closed {
		t.Error(err)
	}
}

// A metadata server that is not there, or down, is looked for again.
func TestAMetadataServerThatComesLater(t *testing.T) {
	d := gcpkmsdouble.Start(t, gcpkmsdouble.Options{TLS: true})
	s := startTokenServer(t, d)
	for name, host := range map[string]string{"none": "", "down": nobody} {
		b := open(t, ambient(t, d, host))
		if err := find(t.Context(), b); signer.CodeOf(err) != signer.Unavailable || !strings.Contains(err.Error(), "server") {
			t.Errorf("%s: %v", name, err)
		}
		t.Setenv("GCE_METADATA_HOST", s.Listener.Addr().String())
		if err := find(t.Context(), b); err != nil {
			t.Errorf("%s, and then there: %v", name, err)
		}
	}
}

// A file that gcloud left comes before the metadata server.
func TestTheFileOfGcloud(t *testing.T) {
	d := gcpkmsdouble.Start(t, gcpkmsdouble.Options{TLS: true})
	_, credential := secure(t, d)
	s := startTokenServer(t, d)
	o := ambient(t, d, s.Listener.Addr().String())
	home := filepath.Dir(credential)
	t.Setenv("HOME", home)
	place := filepath.Join(home, ".config", "gcloud", "application_default_credentials.json")
	move(t, credential, place)
	if err := find(t.Context(), open(t, o)); err != nil || s.calls() != 0 {
		t.Errorf("%v, %d requests to the metadata server", err, s.calls())
	}
}

// federation is a credential whose token is had in exchange for one in a file.
func (s *tokenServer) federation(t *testing.T, more map[string]any) string {
	t.Helper()
	file := map[string]any{
		"type": "external_account", "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q",
		"subject_token_type": "urn:ietf:params:oauth:token-type:jwt", "token_url": s.URL + "/sts",
		"credential_source": map[string]any{"file": writeFile(t, []byte("SUBJECT"))},
	}
	for name, value := range more {
		file[name] = value
	}
	text, err := json.Marshal(file)
	if err != nil {
		t.Fatal(err)
	}
	return writeFile(t, text)
}

// Whatever a credential's tokens come from: servers that are down, or ask for less, are
// told from ones that refuse, and are not quoted.
func TestHowTokenServersFail(t *testing.T) {
	d := gcpkmsdouble.Start(t, gcpkmsdouble.Options{TLS: true})
	const secret = `{"error":"invalid_grant","error_description":"SECRET"}`
	for source, cases := range map[string]map[int]signer.Code{
		"metadata":      {200: signer.Unavailable, 403: signer.Denied, 404: signer.Misconfigured, 429: signer.Throttled, 503: signer.Unavailable, -1: signer.Unavailable},
		"exchange":      {200: signer.Unavailable, 400: signer.Denied, 403: signer.Denied, 408: signer.Unavailable, 429: signer.Throttled, 500: signer.Unavailable, 503: signer.Unavailable},
		"impersonation": {200: signer.Unavailable, 403: signer.Denied, 404: signer.Denied, 429: signer.Throttled, 502: signer.Unavailable},
	} {
		for status, want := range cases {
			s := startTokenServer(t, d)
			o := ambient(t, d, s.Listener.Addr().String())
			switch source {
			case "exchange":
				o.CredentialsFile = s.federation(t, nil)
			case "impersonation":
				o.CredentialsFile = s.federation(t, map[string]any{"service_account_impersonation_url": s.URL + "/x/serviceAccounts/a@b.iam.gserviceaccount.com:generateAccessToken"})
				s.fails = ":generateAccessToken"
			}
			s.status, s.body = status, secret
			b := open(t, o)
			err := find(t.Context(), b)
			if signer.CodeOf(err) != want || strings.Contains(err.Error(), "SECRET") || strings.Contains(err.Error(), "invalid_grant") {
				t.Errorf("%s, status %d: %v, want %q", source, status, err, want)
			}
			if d.Calls("") != 0 {
				t.Errorf("%s, status %d: the service was asked", source, status)
			}
			s.mu.Lock()
			s.status, s.body = 0, ""
			s.mu.Unlock()
			if status == 503 {
				if err := find(t.Context(), b); err != nil {
					t.Errorf("%s, and then there: %v", source, err)
				}
				d = gcpkmsdouble.Start(t, gcpkmsdouble.Options{TLS: true})
			}
		}
	}
}
