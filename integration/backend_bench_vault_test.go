package integration

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// vaultSignatures is a Vault whose every answer takes so much longer. Who asks it
// directly has a token that may only sign, as zonemint has: for the root token
// Vault has less to look up.
func vaultSignatures(t *testing.T, distance time.Duration) signatures {
	v := startVault(t)
	v.must(t, "POST", "transit/keys/direct", map[string]any{"type": "rsa-2048"})
	v.must(t, "POST", "sys/policies/acl/direct", map[string]any{"policy": `path "transit/sign/direct/*" { capabilities = ["update"] }`})
	auth := v.must(t, "POST", "auth/token/create", map[string]any{"policies": []string{"direct"}, "no_default_policy": true, "ttl": "1h"})["auth"]
	address := v.addr
	if distance > 0 {
		address = distant(t, v.addr, distance)
	}
	sign := httpPost{
		url:    "http://" + address + "/v1/transit/sign/direct/sha2-256",
		body:   `{"input":"` + base64.StdEncoding.EncodeToString(make([]byte, 32)) + `","key_version":1,"prehashed":true,"signature_algorithm":"pkcs1v15"}`,
		header: "X-Vault-Token", key: auth.(map[string]any)["client_token"].(string),
	}
	return signatures{
		settings: settings{keysets: []keyset{{"zone", "zone", "RS256"}}, more: v.admit(t, "http://"+address)},
		direct:   sign.drive, count: v.count, forDirect: v.cmd.Process.Pid, forTokens: v.cmd.Process.Pid,
	}
}

// count takes the calls from Vault's audit log.
func (v *vault) count(t *testing.T, in *installation, s *server) (c calls) {
	file := filepath.Join(t.TempDir(), "audit.log")
	v.must(t, "POST", "sys/audit/bench", map[string]any{"type": "file", "options": map[string]any{"file_path": file}})
	issueCounted(t, s.overConnect(t, in.admin))
	v.must(t, "DELETE", "sys/audit/bench", nil)
	log, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer shut(log)
	for lines := bufio.NewScanner(log); lines.Scan(); {
		var entry struct {
			Type    string
			Request struct{ Path string }
		}
		if err := json.Unmarshal(lines.Bytes(), &entry); err != nil {
			t.Fatal("the audit log:", err)
		}
		switch path := entry.Request.Path; {
		case entry.Type != "request" || strings.HasPrefix(path, "sys/audit/"): // ours, and its test of the log
		case strings.HasPrefix(path, "transit/sign/zonemint-"):
			c.signings++
		default:
			c.others++
		}
	}
	return c
}

// distant returns the address of something that is so far away: its answers
// arrive that much later, in their order and as many as there are.
func distant(t *testing.T, address string, by time.Duration) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shut(l) })
	go func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", address)
			if err != nil {
				shut(near)
				continue
			}
			go func() {
				defer shut(far)
				_, _ = io.Copy(far, near) // until one of them closes
			}()
			go copyLate(near, far, by)
		}
	}()
	return l.Addr().String()
}

// copyLate copies until one of them closes, and closes near.
func copyLate(near, far net.Conn, by time.Duration) {
	type piece struct {
		due  time.Time
		data []byte
	}
	under := make(chan piece, 1000) // way
	go func() {
		defer close(under)
		for {
			buf := make([]byte, 4<<10)
			n, err := far.Read(buf)
			if err != nil {
				return
			}
			under <- piece{time.Now().Add(by), buf[:n]}
		}
	}()
	for p := range under {
		time.Sleep(time.Until(p.due))
		_, _ = near.Write(p.data) // far ends if near does
	}
	shut(near)
}
