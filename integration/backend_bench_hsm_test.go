package integration

import (
	"crypto"
	"crypto/rand"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// softHSMSignatures is SoftHSM, a library in the process of whoever signs.
func softHSMSignatures(t *testing.T, distance time.Duration) signatures {
	h, module := newHSM(t), softHSM
	if distance > 0 {
		module = h.distantModule(t, distance)
	}
	key, digest := newCrypto11Key(t, module), make([]byte, crypto.SHA256.Size())
	direct := func(t *testing.T) float64 {
		return rateOf(t, func() error {
			_, err := key.Sign(rand.Reader, digest, crypto.SHA256)
			return err
		})
	}
	return signatures{
		settings: h.settingsFor(module), direct: direct, forDirect: os.Getpid(),
		count: func(t *testing.T, _ *installation, _ *server) (c calls) {
			for name, n := range h.count(t) {
				switch name {
				case "C_SignInit":
					c.signings += n
				case "C_Sign":
				default:
					c.others += n
				}
			}
			return c
		},
	}
}

// settingsFor is settings with another way to the same token, and a session for
// everybody who asks.
func (h *hsm) settingsFor(module string) settings {
	return settings{
		keysets: []keyset{{"zone", "zone", "RS256"}},
		more: fmt.Sprintf("default_backend: hsm\nbackends:\n  hsm:\n    type: pkcs11\n    module: %s\n    token_label: zonemint\n    pin_file: %s\n    max_sessions: %d\n",
			module, filepath.Join(h.dir, "pin"), askers+1),
	}
}

// distantModule builds a module that is SoftHSM, except that every signature takes
// so much longer.
func (h *hsm) distantModule(t *testing.T, by time.Duration) string {
	t.Helper()
	need(t, "gcc")
	headers := strings.TrimSpace(run(t, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/miekg/pkcs11").must(t))
	h.write(t, "distant.c", distantSource)
	module := filepath.Join(h.dir, "distant.so")
	run(t, "gcc", "-shared", "-fPIC", "-I", headers, fmt.Sprintf("-DMODULE=%q", softHSM), fmt.Sprintf("-DMICROSECONDS=%d", by.Microseconds()),
		"-o", module, filepath.Join(h.dir, "distant.c")).must(t)
	return module
}

const distantSource = `
#include <dlfcn.h>
#include <unistd.h>
#include "pkcs11go.h"

static CK_FUNCTION_LIST distant;
static CK_C_Sign sign;

static CK_RV late(CK_SESSION_HANDLE s, CK_BYTE_PTR in, CK_ULONG n, CK_BYTE_PTR out, CK_ULONG_PTR m) {
	if (out) usleep(MICROSECONDS);
	return sign(s, in, n, out, m);
}

CK_RV C_GetFunctionList(CK_FUNCTION_LIST_PTR_PTR list) {
	void *module = dlopen(MODULE, RTLD_NOW);
	CK_C_GetFunctionList get = module ? (CK_C_GetFunctionList)dlsym(module, "C_GetFunctionList") : 0;
	CK_FUNCTION_LIST_PTR real;
	if (!get || get(&real)) return CKR_GENERAL_ERROR;
	distant = *real;
	sign = real->C_Sign;
	distant.C_Sign = late;
	*list = &distant;
	return CKR_OK;
}
`

// count issues countedTokens with the token behind "p11-kit server", and returns
// how often that was asked for which function of PKCS #11 meanwhile.
func (h *hsm) count(t *testing.T) map[string]int {
	t.Helper()
	h.kill()
	log := filepath.Join(h.dir, "calls.log")
	h.startLogged(t, log)
	in := installAdmin(t, newSQLite(t, t.TempDir()), h.settings())
	s := in.startSettled(t)
	before := len(fileText(t, log))
	issueCounted(t, s.overConnect(t, in.admin))
	asked := map[string]int{}
	for _, line := range regexp.MustCompile(`rpc_(C_\w+): \w+: enter`).FindAllStringSubmatch(fileText(t, log)[before:], -1) {
		asked[line[1]]++
	}
	return asked
}

// startLogged starts an HSM that writes down every call before it answers.
func (h *hsm) startLogged(t *testing.T, path string) {
	t.Helper()
	log, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer shut(log)
	cmd := exec.Command("p11-kit", "server", "-f", "-n", h.socket, "--provider", softHSM, "pkcs11:token=zonemint")
	cmd.Env, cmd.Stderr = append(os.Environ(), "P11_KIT_DEBUG=rpc"), log
	_ = os.Remove(h.socket)
	h.process = startGroup(t, cmd)
	eventually(t, 10*time.Second, "the HSM listens", func() bool {
		conn, err := net.Dial("unix", h.socket)
		if err == nil {
			shut(conn)
		}
		return err == nil
	})
}

// TestTheHSMIsAskedOnce counts what is asked of an HSM while tokens are issued.
// C_Sign is there twice for every signature, first for its length.
func TestTheHSMIsAskedOnce(t *testing.T) {
	asked := newHSM(t).count(t)
	want := map[string]int{"C_SignInit": countedTokens, "C_Sign": 2 * countedTokens}
	if !maps.Equal(asked, want) {
		t.Errorf("for %d tokens the HSM was asked %v, want %v", countedTokens, asked, want)
	}
}
