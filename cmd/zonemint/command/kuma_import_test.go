package command_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"math"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zonemint/zonemint/cmd/zonemint/command"
)

// takeover is a zonemint and a control plane, for tests of "kuma import".
type takeover struct {
	dir     string
	addr    string // of zonemint, through a proxy that looks for private keys
	token   string // the file with its API token
	mu      sync.Mutex
	secrets map[string][]byte // of the control plane, by path
	issues  string            // how the control plane signs tokens: the key's file and ID
	asked   []string          // of the control plane
	revokes atomic.Int64      // how many more revocations zonemint takes
}

func newTakeover(t *testing.T) *takeover {
	t.Helper()
	dir := t.TempDir()
	w := &takeover{dir: dir, token: filepath.Join(dir, "data", "admin.token"), secrets: map[string][]byte{}}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan string, 1)
	go func() {
		var stderr bytes.Buffer
		args := []string{"dev", "--listen", "127.0.0.1:0", "--data", filepath.Join(dir, "data")}
		if code := command.Run(ctx, args, command.IO{In: strings.NewReader(""), Out: io.Discard, Err: &stderr}); code != 0 {
			done <- stderr.String()
		}
		close(done)
	}()
	t.Cleanup(func() {
		stop()
		if failed := <-done; failed != "" {
			t.Error(failed)
		}
	})
	w.revokes.Store(math.MaxInt64)
	w.addr = w.inspect(t, waitFor(t, filepath.Join(dir, "data", "addr"), done))
	return w
}

// waitFor waits for a file and returns what is in it.
func waitFor(t *testing.T, path string, failed <-chan string) string {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if b, err := os.ReadFile(path); err == nil && len(b) > 0 {
			return strings.TrimSpace(string(b))
		}
		select {
		case text := <-failed:
			t.Fatal(text)
		default:
		}
	}
	t.Fatalf("there is no %s", path)
	return ""
}

// inspect puts a proxy before zonemint. No private key may come by, in PEM or
// otherwise.
func (w *takeover) inspect(t *testing.T, addr string) string {
	t.Helper()
	to, err := url.Parse(addr)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(to)
	proxy.ErrorLog = log.New(io.Discard, "", 0) // of clients that leave
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || bytes.Contains(body, []byte("PRIVATE")) || bytes.Contains(body, []byte(base64.StdEncoding.EncodeToString([]byte("-----BEGIN RSA PRIVATE")))) {
			t.Errorf("%s got a private key, %v", r.URL.Path, err)
		}
		if strings.HasSuffix(r.URL.Path, "/RevokeToken") && w.revokes.Add(-1) < 0 {
			rw.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		proxy.ServeHTTP(rw, r)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// controlPlane starts a control plane that has the secrets.
func (w *takeover) controlPlane(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.asked = append(w.asked, r.Method+" "+r.URL.Path)
		if r.Header.Get("Authorization") != "Bearer admin" {
			http.Error(rw, `{"title":"Access Denied"}`, http.StatusForbidden)
			return
		}
		w.answer(t, rw, r)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func (w *takeover) answer(t *testing.T, rw http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost && w.issues != "" {
		key, kid, _ := strings.Cut(w.issues, " ")
		_, _ = io.WriteString(rw, w.sign(t, key, kid, "nowhere"))
		return
	}
	if data, ok := w.secrets[r.URL.Path]; ok && r.Method == http.MethodGet {
		_ = json.NewEncoder(rw).Encode(map[string]any{"data": data})
		return
	}
	if r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, "secrets") {
		http.NotFound(rw, r)
		return
	}
	items := []map[string]any{}
	for path, data := range w.secrets {
		if name, ok := strings.CutPrefix(path, r.URL.Path+"/"); ok {
			items = append(items, map[string]any{"name": name, "data": data})
		}
	}
	_ = json.NewEncoder(rw).Encode(map[string]any{"items": items, "next": nil})
}

// key makes a key and returns the files of its halves.
func (w *takeover) key(t *testing.T, name string) (private, public string) {
	t.Helper()
	private, public = filepath.Join(w.dir, name+".pem"), filepath.Join(w.dir, name+".pub")
	write(t, private, zonemint(t, "generate", "signing-key", "--format", "pem"))
	write(t, public, zonemint(t, "generate", "public-key", "--signing-key-path", private))
	return private, public
}

// has gives the control plane a secret with what is in a file.
func (w *takeover) has(t *testing.T, path, file string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	w.set(path, string(b))
}

func (w *takeover) set(path, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.secrets[path] = []byte(text)
}

// sign signs a token for a zone as the control plane would.
func (w *takeover) sign(t *testing.T, private, kid, zone string) string {
	t.Helper()
	return zonemint(t, "generate", "zone-token", "--zone", zone, "--valid-for", "1h", "--signing-key-path", private, "--kid", kid)
}

// run runs a command with zonemint's address and returns what it prints.
func (w *takeover) run(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	args = append(args, "--addr", w.addr, "--token-file", w.token)
	code = command.Run(t.Context(), args, command.IO{In: strings.NewReader(""), Out: &out, Err: &errs})
	for _, text := range []string{out.String(), errs.String()} {
		if strings.Contains(text, "PRIVATE") {
			t.Error("a private key is printed")
		}
	}
	return code, out.String(), errs.String()
}

// takeOver imports from the control plane.
func (w *takeover) takeOver(t *testing.T, cp string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	file := filepath.Join(w.dir, "cp.token")
	write(t, file, "admin\n")
	return w.run(t, append([]string{"kuma", "import", "--control-plane", cp, "--control-plane-token-file", file, "--trusted-for", "24h"}, args...)...)
}

func (w *takeover) must(t *testing.T, args ...string) string {
	t.Helper()
	code, out, stderr := w.run(t, args...)
	if code != 0 {
		t.Fatalf("zonemint %s: %d\n%s", strings.Join(args, " "), code, stderr)
	}
	return out
}

// verifies says whether zonemint takes a token of keyset zone.
func (w *takeover) verifies(t *testing.T, raw string) bool {
	t.Helper()
	file := filepath.Join(w.dir, "verify.token")
	write(t, file, raw)
	code, _, stderr := w.run(t, "verify", "--keyset", "zone", file)
	if code != 0 && code != 5 {
		t.Fatal(stderr)
	}
	return code == 0
}

func wants(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(strings.Join(strings.Fields(text), " "), p) {
			t.Errorf("%q is not in\n%s", p, text)
		}
	}
}

func jti(t *testing.T, raw string) string {
	t.Helper()
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(raw, ".")[1])
	var claims struct {
		JTI string `json:"jti"`
	}
	if err := errors.Join(err, json.Unmarshal(payload, &claims)); err != nil {
		t.Fatal(err)
	}
	return claims.JTI
}

func TestKumaImportTakesOver(t *testing.T) {
	t.Parallel()
	w := newTakeover(t)
	zone, _ := w.key(t, "zone")
	dataplane, _ := w.key(t, "dataplane")
	user, _ := w.key(t, "user")
	w.has(t, "/global-secrets/zone-token-signing-key-1", zone)
	w.has(t, "/global-secrets/user-token-signing-key-1", user)
	w.has(t, "/meshes/default/secrets/dataplane-token-signing-key-default-1", dataplane)
	w.set("/global-secrets/admin-user-token", "never read")
	good, revoked := w.sign(t, zone, "1", "west"), w.sign(t, zone, "1", "east")
	w.set("/global-secrets/zone-token-revocations", jti(t, revoked)+", older\n")
	w.set("/global-secrets/dataplane-token-revocations-default", "one,two")
	w.set("/meshes/default/secrets/dataplane-token-revocations-default", "two,three")
	cp := w.controlPlane(t)
	all := []string{"--keyset", "zone,dataplane/default", "--keyset", "user"}

	code, out, stderr := w.takeOver(t, cp, append(all, "--dry-run")...)
	if code != 0 || w.verifies(t, good) {
		t.Fatalf("dry run: %d\n%s\n%s", code, out, stderr)
	}
	wants(t, out, "zone 1 GlobalSecret zone-token-signing-key-1 would import", "dry run", "WOULD REVOKE")

	if code, out, stderr = w.takeOver(t, cp, all...); code != 0 {
		t.Fatalf("%d\n%s\n%s", code, out, stderr)
	}
	wants(t, out, "zone 1 GlobalSecret zone-token-signing-key-1 imported 20", "user 1 GlobalSecret user-token-signing-key-1 imported 20",
		"dataplane/default 1 Secret default/dataplane-token-signing-key-default-1 imported 20",
		"zone GlobalSecret zone-token-revocations 2 0 2 0", "Secret default/dataplane-token-revocations-default 3 0 3 0",
		"What comes next", "zonemint kuma export --enable-issuer=false")
	if !w.verifies(t, good) || w.verifies(t, revoked) {
		t.Error("a token that was good is refused, or a revoked one is not")
	}
	wants(t, w.must(t, "revocation", "list", "--keyset", "zone"), "older")

	if code, out, stderr = w.takeOver(t, cp, append(all, "-o", "json")...); code != 0 {
		t.Fatalf("again: %d\n%s", code, stderr)
	}
	wants(t, out, `"result": "trusted already"`, `"known": 2, "revoked": 0`)
	if strings.Contains(out, `"imported"`) {
		t.Errorf("again: %s", out)
	}
	for _, asked := range w.asked {
		if !strings.HasPrefix(asked, "GET ") || strings.HasSuffix(asked, "/admin-user-token") {
			t.Errorf("the control plane was asked %s", asked)
		}
	}
}

func TestKumaImportReportsConflicts(t *testing.T) {
	t.Parallel()
	w := newTakeover(t)
	first, _ := w.key(t, "first")
	second, _ := w.key(t, "second")
	_, short := w.key(t, "third")
	w.has(t, "/global-secrets/zone-token-signing-key-1", first)
	w.has(t, "/global-secrets/user-token-signing-key-1", first)
	cp := w.controlPlane(t)

	code, out, stderr := w.takeOver(t, cp, "--keyset", "zone,user")
	wants(t, out, "zone 1 GlobalSecret zone-token-signing-key-1 imported", "user 1 GlobalSecret user-token-signing-key-1 conflict")
	wants(t, stderr, `keyset "user", key "1": conflict: keyset "zone" trusts this key`)
	if code != 1 || strings.Contains(out, "What comes next") {
		t.Errorf("one key for two kinds of tokens: %d\n%s", code, out)
	}

	w.has(t, "/global-secrets/zone-token-signing-key-1", second)
	w.has(t, "/global-secrets/zone-token-signing-key-2", short) // a public key
	w.has(t, "/global-secrets/zone-token-signing-key", second)
	w.set("/global-secrets/zone-token-revocations", "ok,"+strings.Repeat("x", 300))
	code, out, stderr = w.takeOver(t, cp, "--keyset", "zone")
	wants(t, out, "zone GlobalSecret zone-token-revocations 2 0 1 1")
	wants(t, stderr, "1 of the IDs cannot be revoked", "its keys were not imported")
	if code != 1 {
		t.Errorf("exit code %d", code)
	}
	w.set("/global-secrets/zone-token-revocations", "ok")
	code, out, stderr = w.takeOver(t, cp, "--keyset", "zone")
	wants(t, stderr, `key "1": conflict: the keyset has another key under this ID, serial 3`, `key "2": failed: it is not an RSA private key`)
	wants(t, out, "zone 0 GlobalSecret zone-token-signing-key skipped - it is a key of Kuma 1.3")
	if code != 1 {
		t.Errorf("exit code %d", code)
	}

	w.must(t, "key", "distrust", "zone", "3", "--force", "--yes")
	w.has(t, "/global-secrets/zone-token-signing-key-1", first)
	_, _, stderr = w.takeOver(t, cp, "--keyset", "zone")
	wants(t, stderr, "serial 3, which is distrusted", "it is not trusted again")
}

// Without the private half a token proves that the key is the control plane's.
func TestKumaImportByProofToken(t *testing.T) {
	t.Parallel()
	w := newTakeover(t)
	private, public := w.key(t, "one")
	other, otherPublic := w.key(t, "two")
	w.has(t, "/global-secrets/zone-token-signing-public-key-1", public)
	w.has(t, "/global-secrets/zone-token-signing-public-key-2", otherPublic)
	cp := w.controlPlane(t)
	code, _, stderr := w.takeOver(t, cp, "--keyset", "zone")
	wants(t, stderr, `key "1": no proof`, "--proof-token-file", "POST /tokens/zone: 404")
	if code != 1 {
		t.Errorf("without proof: exit code %d", code)
	}

	w.mu.Lock()
	w.issues = other + " 2"
	w.mu.Unlock()
	token := filepath.Join(w.dir, "one.token")
	write(t, token, w.sign(t, private, "1", "west"))
	code, out, stderr := w.takeOver(t, cp, "--keyset", "zone", "--proof-token-file", token)
	wants(t, out, "zone-token-signing-public-key-1 imported", "zone-token-signing-public-key-2 imported")
	if code != 0 || !w.verifies(t, w.sign(t, other, "2", "east")) {
		t.Errorf("with proofs: %d\n%s", code, stderr)
	}
}

// What was lifted here stays so, however often a list is imported.
func TestKumaImportLeavesLiftedRevocations(t *testing.T) {
	t.Parallel()
	w := newTakeover(t)
	w.set("/global-secrets/zone-token-revocations", "aaa,bbb")
	cp := w.controlPlane(t)
	if code, _, stderr := w.takeOver(t, cp, "--keyset", "zone"); code != 0 {
		t.Fatal(stderr)
	}
	w.must(t, "revocation", "lift", "aaa", "--keyset", "zone", "--reason", "a mistake")
	_, out, stderr := w.takeOver(t, cp, "--keyset", "zone")
	wants(t, out, "zone GlobalSecret zone-token-revocations 2 2 0 0")
	wants(t, stderr, "1 have been taken back here")
	if out := w.must(t, "revocation", "list", "--keyset", "zone"); strings.Contains(out, "aaa") {
		t.Errorf("a revocation that was taken back is there again:\n%s", out)
	}
}

// A long list is taken over in as many attempts as it takes. Until it is complete
// no key is trusted.
func TestKumaImportGoesOnWhereItEnded(t *testing.T) {
	t.Parallel()
	w := newTakeover(t)
	private, _ := w.key(t, "zone")
	w.has(t, "/global-secrets/zone-token-signing-key-1", private)
	var ids []string
	for i := range 1300 {
		ids = append(ids, fmt.Sprintf("id-%d", i))
	}
	w.set("/global-secrets/zone-token-revocations", strings.Join(ids, ","))
	cp := w.controlPlane(t)

	w.revokes.Store(200)
	code, out, stderr := w.takeOver(t, cp, "--keyset", "zone")
	wants(t, stderr, "of 1300 tokens were revoked, do it again to go on")
	if code != 4 || strings.Contains(out, "signing-key") {
		t.Errorf("interrupted: %d\n%s", code, out)
	}
	w.revokes.Store(math.MaxInt64)
	code, out, stderr = w.takeOver(t, cp, "--keyset", "zone", "-o", "json")
	wants(t, stderr, "zone: 1000 of 1")
	wants(t, out, `"result": "imported"`)
	var report struct {
		Revocations []struct{ Listed, Known, Revoked int }
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil || code != 0 || len(report.Revocations) != 1 {
		t.Fatalf("again: %d, %v\n%s", code, err, stderr)
	}
	// What was under way when the first failed may have been revoked, or not.
	if r := report.Revocations[0]; r.Known+r.Revoked != 1300 || r.Known < 100 || r.Known > 300 {
		t.Errorf("again: %+v", r)
	}
}
