//go:build cgo && linux

package pkcs11_test

import (
	"bytes"
	"crypto/rand"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zonemint/zonemint/backends/pkcs11"
	"github.com/zonemint/zonemint/signer"
	"github.com/zonemint/zonemint/signer/signertest"
)

const (
	openCryptoki = "/usr/lib/x86_64-linux-gnu/pkcs11/libopencryptoki.so"
	ockLabel     = "zonemint-test"
	ockSlot      = "3" // of its software token
	ockPIN       = "31415926"
	ockEnv       = "ZONEMINT_TEST_OPENCRYPTOKI_PIN"
)

// newSoftwareToken starts openCryptoki and makes its software token, of which the
// machine has one. One that is somebody else's is left alone.
func newSoftwareToken(t *testing.T) {
	t.Helper()
	need(t, openCryptoki, "pkcsslotd", "pkcsconf")
	if os.Getuid() != 0 {
		t.Skip("openCryptoki is started by root only")
	}
	if exec.CommandContext(t.Context(), "pidof", "pkcsslotd").Run() == nil {
		t.Skip("openCryptoki is running, as a service of this machine, and its tokens are not ours to touch")
	}
	removeSoftwareToken(t)
	t.Cleanup(func() { removeSoftwareToken(t) }) // runs after the daemon has ended
	startSlotDaemon(t)
	const first, so = "87654321", "27182818"
	pkcsconf(t, "-I", first, ockLabel)
	pkcsconf(t, "-P", first, so, so)
	pkcsconf(t, "-u", so, ockPIN, ockPIN)
	t.Setenv(ockEnv, ockPIN)
}

// removeSoftwareToken deletes the token of an earlier run. openCryptoki 3.8 does
// not make one anew over one whose security officer has a PIN of its own.
func removeSoftwareToken(t *testing.T) {
	t.Helper()
	const dir = "/var/lib/opencryptoki/swtok"
	data, err := os.ReadFile(filepath.Join(dir, "NVTOK.DAT")) // begins with the label
	if os.IsNotExist(err) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if ours, blank := bytes.HasPrefix(data, []byte(ockLabel+" ")), bytes.HasPrefix(data, []byte("IBM OS PKCS#11 ")); !ours && !blank {
		missing(t, "the software token of openCryptoki is in use by somebody")
	}
	for _, pattern := range []string{"NVTOK.DAT", "MK_*", "TOK_OBJ/*"} {
		files, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func startSlotDaemon(t *testing.T) {
	t.Helper()
	daemon := exec.Command("pkcsslotd", "-f")
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = daemon.Process.Signal(os.Interrupt) // it has shared memory to remove
		_ = daemon.Wait()
	})
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if exec.CommandContext(t.Context(), "pkcsconf", "-s").Run() == nil {
			return
		}
	}
	t.Fatal("pkcsslotd does not start")
}

// pkcsconf runs one command and gives it its answers, a line each.
func pkcsconf(t *testing.T, command string, answers ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "pkcsconf", "-c", ockSlot, command)
	cmd.Stdin = strings.NewReader(strings.Join(answers, "\n") + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("pkcsconf %s: %v\n%s", command, err, out)
	}
}

func ockOptions() pkcs11.Options {
	return pkcs11.Options{Module: openCryptoki, TokenLabel: ockLabel, PINEnv: ockEnv, Logger: slog.New(slog.DiscardHandler)}
}

func TestOpenCryptoki(t *testing.T) {
	newSoftwareToken(t)
	var modules pkcs11.Modules
	t.Run("refuses ES256 when it is configured", func(t *testing.T) {
		opts := ockOptions()
		opts.Algorithms = []signer.Algorithm{signer.RS256, signer.ES256}
		_, err := modules.Open(t.Context(), opts)
		if err == nil || code(err) != signer.Misconfigured || !strings.Contains(err.Error(), "has no ES256 keys") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("offers RSA alone", func(t *testing.T) {
		got := open(t, &modules, ockOptions()).Traits().Algorithms
		if !slices.Contains(got, signer.RS256) || slices.ContainsFunc(got, func(a signer.Algorithm) bool { return a.RSABits() == 0 }) {
			t.Errorf("offers %v", got)
		}
	})
	signertest.Run(t, signertest.Harness{
		Open:       func(tb testing.TB) signer.Backend { return open(tb, &modules, ockOptions()) },
		Algorithms: []signer.Algorithm{signer.RS256, signer.RS256With3072, signer.RS384, signer.PS256},
		UnknownRef: signer.Ref(unknownRef),
		Secrets:    []string{ockPIN},
		Unbound:    true,
		PlantForeign: func(tb testing.TB) signer.Ref {
			id := make([]byte, 8)
			rand.Read(id)
			if _, err := raw(tb, openCryptoki, ockLabel, ockPIN).GenerateRSAKeyPairWithLabel(id, []byte("tls-server"), 2048); err != nil {
				tb.Fatal(err)
			}
			return refOf(id, "tls-server")
		},
		PlantNamed: func(tb testing.TB, alg signer.Algorithm) string {
			return plantNamed(tb, raw(tb, openCryptoki, ockLabel, ockPIN), alg)
		},
		UnknownName: "pkcs11:object=nobody",
		BreakKey: func(tb testing.TB, ref signer.Ref) {
			ctx := raw(tb, openCryptoki, ockLabel, ockPIN)
			id, label := unplug(tb, ctx, ref)
			if _, err := ctx.GenerateRSAKeyPairWithLabel(id, []byte(label), 2048); err != nil {
				tb.Fatal(err)
			}
		},
	})
}
