package integration

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
	"testing"
	"time"
)

// vault is a real Vault or OpenBao server with its storage in files, and what
// its operator holds.
type vault struct {
	program, config, log string
	addr                 string // host:port
	root, unsealKey      string
	cmd                  *exec.Cmd
}

// startVault starts a server, initialised and unsealed, with a transit engine.
func startVault(t *testing.T) *vault {
	t.Helper()
	program := os.Getenv("ZONEMINT_TEST_VAULT")
	for _, name := range []string{"vault", "bao"} {
		if path, err := exec.LookPath(name); err == nil && program == "" {
			program = path
		}
	}
	if program == "" {
		missing(t, "this test needs a vault or bao server: set ZONEMINT_TEST_VAULT=$(scripts/test-vault)")
	}
	dir := t.TempDir()
	v := &vault{program: program, addr: freeAddress(t), config: filepath.Join(dir, "vault.json"), log: filepath.Join(dir, "log")}
	config := fmt.Sprintf(`{"storage":{"file":{"path":%q}},"listener":{"tcp":{"address":%q,"tls_disable":true}},"api_addr":"http://%s","disable_mlock":true}`,
		filepath.Join(dir, "data"), v.addr, v.addr)
	if err := os.WriteFile(v.config, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	v.start(t)
	said := v.must(t, "PUT", "sys/init", map[string]any{"secret_shares": 1, "secret_threshold": 1})
	v.root, v.unsealKey = said["root_token"].(string), said["keys_base64"].([]any)[0].(string)
	v.unseal(t)
	v.must(t, "POST", "sys/mounts/transit", map[string]any{"type": "transit"})
	return v
}

// freeAddress returns an address that nobody listens on, for a server that cannot pick
// one or comes back to it. Its port is none of those that systems give to whoever asks
// for any: somebody else might be given such a one while the server does not run.
func freeAddress(t *testing.T) string {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 10_000+rand.IntN(10_000)))
		if err == nil {
			defer shut(l)
			return l.Addr().String()
		}
	}
	t.Fatal("there is no free port")
	return ""
}

// start runs the program until it answers. It is sealed then.
func (v *vault) start(t *testing.T) {
	t.Helper()
	log, err := os.OpenFile(v.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer shut(log)
	cmd := exec.Command(v.program, "server", "-config="+v.config)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), "HOME="+filepath.Dir(v.log))
	dieWithParent(cmd)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	v.cmd = cmd
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	eventually(t, 30*time.Second, "the vault server answers", func() bool {
		_, _, err := v.ask("GET", "sys/health", nil)
		return err == nil
	})
}

// kill ends it as a crash would.
func (v *vault) kill(t *testing.T) {
	t.Helper()
	if err := v.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = v.cmd.Wait()
}

// unseal returns when the server is active.
func (v *vault) unseal(t *testing.T) {
	t.Helper()
	v.must(t, "PUT", "sys/unseal", map[string]any{"key": v.unsealKey})
	eventually(t, 30*time.Second, "the vault server is active", func() bool {
		status, _, err := v.ask("GET", "sys/health", nil)
		return err == nil && status == http.StatusOK
	})
}

// ask makes a request as the operator.
func (v *vault) ask(method, path string, body any) (int, map[string]any, error) {
	text, err := json.Marshal(body)
	if err != nil {
		return 0, nil, err
	}
	req, err := http.NewRequest(method, "http://"+v.addr+"/v1/"+path, bytes.NewReader(text))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("X-Vault-Token", v.root)
	c := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	var said map[string]any
	if err == nil && len(answer) > 0 {
		err = json.Unmarshal(answer, &said)
	}
	return resp.StatusCode, said, err
}

// must makes a request as the operator, which succeeds.
func (v *vault) must(t *testing.T, method, path string, body any) map[string]any {
	t.Helper()
	status, said, err := v.ask(method, path, body)
	if err != nil || status < 200 || status > 299 {
		t.Fatalf("%s %s: %d %v %v", method, path, status, said["errors"], err)
	}
	return said
}

// data is what an answer says under "data".
func (v *vault) data(t *testing.T, method, path string, body any) map[string]any {
	t.Helper()
	return v.must(t, method, path, body)["data"].(map[string]any)
}

// admit gives zonemint a role of its own, under the policy that zonemint prints,
// and returns the settings of a backend that logs in with it.
func (v *vault) admit(t *testing.T, address string) string {
	t.Helper()
	policy := zonemint(t, "backend", "policy", "vault", "--create").must(t)
	v.must(t, "POST", "sys/policies/acl/zonemint", map[string]any{"policy": policy})
	v.must(t, "POST", "sys/auth/approle", map[string]any{"type": "approle"})
	v.must(t, "POST", "auth/approle/role/zonemint", map[string]any{"token_policies": "zonemint", "token_no_default_policy": true, "token_ttl": "1h"})
	roleID := v.data(t, "GET", "auth/approle/role/zonemint/role-id", nil)["role_id"].(string)
	secret := v.data(t, "POST", "auth/approle/role/zonemint/secret-id", nil)["secret_id"].(string)
	file := filepath.Join(t.TempDir(), "secret-id")
	if err := os.WriteFile(file, []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("default_backend: vault\nbackends:\n  vault:\n    address: %q\n    auth: approle\n    role_id: %q\n    secret_id_file: %q\n",
		address, roleID, file)
}
