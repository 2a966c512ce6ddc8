package vault_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// server is a real Vault or OpenBao, with the means of an operator.
type server struct {
	program, config, log string
	dev                  []string // arguments of dev mode, nil for one with storage in files
	addr                 string   // host:port
	root                 string   // its root token
	unseal               string   // its unseal key, if it has storage in files
	cmd                  *exec.Cmd
}

// program returns the path of vault or bao.
func program(tb testing.TB) string {
	tb.Helper()
	if path := os.Getenv("ZONEMINT_TEST_VAULT"); path != "" {
		return path
	}
	for _, name := range []string{"vault", "bao"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	const what = "this test needs a vault or bao server: set ZONEMINT_TEST_VAULT=$(scripts/test-vault)"
	if os.Getenv("ZONEMINT_TEST_REQUIRE") == "1" {
		tb.Fatal(what)
	}
	tb.Skip(what)
	return ""
}

// freeAddress is one where nobody listens. The system gives its port nobody who does
// not ask for it, so that it stays free while a server is away.
func freeAddress(tb testing.TB) string {
	tb.Helper()
	for range 100 {
		addr := fmt.Sprintf("127.0.0.1:%d", 10000+rand.IntN(10000))
		if l, err := net.Listen("tcp", addr); err == nil {
			if err := l.Close(); err != nil {
				tb.Fatal(err)
			}
			return addr
		}
	}
	tb.Fatal("there is no free port")
	return ""
}

// startDev starts a server that keeps everything in memory, and mounts transit.
func startDev(tb testing.TB) *server {
	tb.Helper()
	s := &server{program: program(tb), addr: freeAddress(tb), root: "root-of-the-dev-server", log: filepath.Join(tb.TempDir(), "log")}
	s.dev = []string{"server", "-dev", "-dev-root-token-id=" + s.root, "-dev-listen-address=" + s.addr, "-dev-no-store-token"}
	s.start(tb)
	s.must(tb, "POST", "sys/mounts/transit", map[string]any{"type": "transit"})
	return s
}

// startDurable starts a server that can be restarted, and mounts transit.
func startDurable(tb testing.TB) *server {
	tb.Helper()
	dir := tb.TempDir()
	s := &server{program: program(tb), addr: freeAddress(tb), log: filepath.Join(dir, "log"), config: filepath.Join(dir, "config.json")}
	config := fmt.Sprintf(`{"storage":{"file":{"path":%q}},"listener":{"tcp":{"address":%q,"tls_disable":true}},"api_addr":"http://%s","disable_mlock":true}`,
		filepath.Join(dir, "data"), s.addr, s.addr)
	if err := os.WriteFile(s.config, []byte(config), 0o600); err != nil {
		tb.Fatal(err)
	}
	s.start(tb)
	said := s.must(tb, "PUT", "sys/init", map[string]any{"secret_shares": 1, "secret_threshold": 1})
	s.root, s.unseal = said["root_token"].(string), said["keys_base64"].([]any)[0].(string)
	s.open(tb)
	s.must(tb, "POST", "sys/mounts/transit", map[string]any{"type": "transit"})
	return s
}

// start runs the program until it listens. It is killed after the test.
func (s *server) start(tb testing.TB) {
	tb.Helper()
	args := s.dev
	if args == nil {
		args = []string{"server", "-config=" + s.config}
	}
	log, err := os.OpenFile(s.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	s.cmd = exec.Command(s.program, args...)
	s.cmd.Stdout, s.cmd.Stderr = log, log
	dieWithParent(s.cmd)
	s.cmd.Env = append(os.Environ(), "HOME="+filepath.Dir(s.log))
	if err := s.cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	cmd := s.cmd
	tb.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		status, _, err := s.try("GET", "sys/health", nil)
		ready := err == nil && (s.dev == nil || status == http.StatusOK)
		if ready {
			return
		}
		if time.Now().After(end) {
			text, _ := os.ReadFile(s.log)
			tb.Fatalf("the server does not start: %v\n%s", err, text)
		}
	}
}

// kill ends the server as a crash would.
func (s *server) kill(tb testing.TB) {
	tb.Helper()
	if err := s.cmd.Process.Kill(); err != nil {
		tb.Fatal(err)
	}
	_ = s.cmd.Wait()
}

// open unseals a server with storage in files and waits until it is active.
func (s *server) open(tb testing.TB) {
	tb.Helper()
	s.must(tb, "PUT", "sys/unseal", map[string]any{"key": s.unseal})
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if status, _, err := s.try("GET", "sys/health", nil); err == nil && status == http.StatusOK {
			return
		}
		if time.Now().After(end) {
			tb.Fatal("the server does not become active")
		}
	}
}

func (s *server) url() string { return "http://" + s.addr }

// try makes a request as the operator.
func (s *server) try(method, path string, body any) (int, map[string]any, error) {
	return s.tryAs(s.root, method, path, body)
}

func (s *server) tryAs(token, method, path string, body any) (int, map[string]any, error) {
	text, err := json.Marshal(body)
	if err != nil {
		return 0, nil, err
	}
	req, err := http.NewRequest(method, s.url()+"/v1/"+path, bytes.NewReader(text))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("X-Vault-Token", token)
	client := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, nil, err
	}
	var said map[string]any
	if len(answer) > 0 {
		err = json.Unmarshal(answer, &said)
	}
	return resp.StatusCode, said, err
}

// must makes a request as the operator, which succeeds.
func (s *server) must(tb testing.TB, method, path string, body any) map[string]any {
	tb.Helper()
	status, said, err := s.try(method, path, body)
	if err != nil || status < 200 || status > 299 {
		tb.Fatalf("%s %s: %d %v %v", method, path, status, said["errors"], err)
	}
	return said
}

// data is must for what the answer says under "data".
func (s *server) data(tb testing.TB, method, path string, body any) map[string]any {
	tb.Helper()
	return s.must(tb, method, path, body)["data"].(map[string]any)
}

// appRole makes a role that grants policy, and returns its role ID and the file
// of its secret ID.
func (s *server) appRole(tb testing.TB, policy string, role map[string]any) (roleID, secretFile, secret string) {
	tb.Helper()
	if status, _, _ := s.try("GET", "sys/auth/approle", nil); status != http.StatusOK {
		s.must(tb, "POST", "sys/auth/approle", map[string]any{"type": "approle"})
	}
	name := strings.ToLower(strings.NewReplacer("/", "-", "_", "-", " ", "-").Replace(tb.Name()))
	s.must(tb, "POST", "sys/policies/acl/"+name, map[string]any{"policy": policy})
	settings := map[string]any{"token_policies": []string{name}, "token_no_default_policy": true, "token_ttl": "1h"}
	for k, v := range role {
		settings[k] = v
	}
	s.must(tb, "POST", "auth/approle/role/"+name, settings)
	roleID = s.data(tb, "GET", "auth/approle/role/"+name+"/role-id", nil)["role_id"].(string)
	secret = s.data(tb, "POST", "auth/approle/role/"+name+"/secret-id", nil)["secret_id"].(string)
	return roleID, writeFile(tb, secret), secret
}
