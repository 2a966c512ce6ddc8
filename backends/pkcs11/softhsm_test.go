//go:build cgo && linux

package pkcs11_test

import (
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/eclipse-keypont/crypto11"

	"github.com/zonemint/zonemint/backends/pkcs11"
	"github.com/zonemint/zonemint/signer"
	"github.com/zonemint/zonemint/signer/signertest"
)

const (
	softHSM   = "/usr/lib/softhsm/libsofthsm2.so"
	pin       = "31415926-pin"
	wrongPIN  = "27182818-pin"
	fileMode  = 0o600
	pinEnv    = "ZONEMINT_TEST_PKCS11_PIN"
	wrongEnv  = "ZONEMINT_TEST_PKCS11_WRONG_PIN"
	confNamed = "SOFTHSM2_CONF"
)

// SoftHSM reads its configuration once in a process, so one folder of tokens
// serves all tests of this binary.
func TestMain(m *testing.M) { os.Exit(withTokens(m)) }

func withTokens(m *testing.M) int {
	dir, err := os.MkdirTemp("", "zonemint-softhsm-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	conf := filepath.Join(dir, "softhsm2.conf")
	tokens := filepath.Join(dir, "tokens")
	text := "directories.tokendir = " + tokens + "\nobjectstore.backend = file\nlog.level = ERROR\n"
	if err := os.Mkdir(tokens, 0o700); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := os.WriteFile(conf, []byte(text), fileMode); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for name, value := range map[string]string{confNamed: conf, pinEnv: pin, wrongEnv: wrongPIN} {
		if err := os.Setenv(name, value); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return m.Run()
}

// missing skips the test, or fails it where nothing may be missing.
func missing(tb testing.TB, what string) {
	tb.Helper()
	if os.Getenv("ZONEMINT_TEST_REQUIRE") == "1" {
		tb.Fatal(what)
	}
	tb.Skip(what)
}

func need(tb testing.TB, paths ...string) {
	tb.Helper()
	for _, path := range paths {
		if _, err := exec.LookPath(path); err == nil {
			continue
		}
		if _, err := os.Stat(path); err != nil {
			missing(tb, "this test needs "+path)
		}
	}
}

// newToken makes a token in SoftHSM and returns its label.
func newToken(tb testing.TB) string {
	tb.Helper()
	label := strings.TrimPrefix(signer.NewLabel(), "zonemint-")
	initToken(tb, label, pin)
	return label
}

func initToken(tb testing.TB, label, pin string) {
	tb.Helper()
	need(tb, softHSM, "softhsm2-util")
	out, err := exec.CommandContext(tb.Context(), "softhsm2-util", "--init-token", "--free",
		"--label", label, "--pin", pin, "--so-pin", "so-"+pin).CombinedOutput()
	if err != nil {
		tb.Fatalf("softhsm2-util: %v\n%s", err, out)
	}
}

func options(module, label string) pkcs11.Options {
	return pkcs11.Options{Module: module, TokenLabel: label, PINEnv: pinEnv, Logger: slog.New(slog.DiscardHandler)}
}

func open(tb testing.TB, modules *pkcs11.Modules, opts pkcs11.Options) *pkcs11.Backend {
	tb.Helper()
	b, err := modules.Open(tb.Context(), opts)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := b.Close(); err != nil {
			tb.Errorf("close: %v", err)
		}
	})
	return b
}

func newSpec(alg signer.Algorithm) signer.Spec {
	return signer.Spec{Keyset: "zone", Serial: 1, Label: signer.NewLabel(), Algorithm: alg}
}

// raw opens the token as somebody else in this process. It goes by the module
// that the backends have loaded.
func raw(tb testing.TB, module, label, pin string) *crypto11.Context {
	tb.Helper()
	path, err := filepath.EvalSymlinks(module)
	if err != nil {
		tb.Fatal(err)
	}
	ctx, err := crypto11.Configure(&crypto11.Config{Path: path, TokenLabel: label, Pin: pin, MaxSessions: 2})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = ctx.Close() })
	return ctx
}

// parts takes a reference apart.
func parts(tb testing.TB, ref signer.Ref) (id []byte, label string) {
	tb.Helper()
	var text string
	fields := strings.SplitN(string(ref), ":", 4)
	if len(fields) != 4 {
		tb.Fatalf("%q is no reference", ref)
	}
	text, label = fields[2], fields[3]
	if _, err := fmt.Sscanf(text, "%x", &id); err != nil {
		tb.Fatal(err)
	}
	return id, label
}

// unknownRef is well-formed, and the label is not one of zonemint's: another
// one than the spec's would be refused without a look.
const unknownRef = "pkcs11:v1:00112233445566778899aabbccddeeff:somebody else's"

func TestConformanceOnSoftHSM(t *testing.T) {
	label := newToken(t)
	var modules pkcs11.Modules
	signertest.Run(t, signertest.Harness{
		Open:       func(tb testing.TB) signer.Backend { return open(tb, &modules, options(softHSM, label)) },
		UnknownRef: signer.Ref(unknownRef),
		Secrets:    []string{pin, "so-" + pin},
		Unbound:    true, // the token keeps the label alone; that one is bound, see TestOpenRefusesTheKeyOfAnotherLabel
		BreakKey:   func(tb testing.TB, ref signer.Ref) { breakKey(tb, raw(tb, softHSM, label, pin), ref) },
		PlantForeign: func(tb testing.TB) signer.Ref {
			id := []byte("of another tool")
			if _, err := raw(tb, softHSM, label, pin).GenerateECDSAKeyPairWithLabel(id, []byte("tls-server"), elliptic.P256()); err != nil {
				tb.Fatal(err)
			}
			return refOf(id, "tls-server")
		},
		PlantNamed: func(tb testing.TB, alg signer.Algorithm) string {
			return plantNamed(tb, raw(tb, softHSM, label, pin), alg)
		},
		UnknownName: "pkcs11:object=nobody",
	})
}

// plantNamed makes a key as another tool would, and returns its URI.
func plantNamed(tb testing.TB, ctx *crypto11.Context, alg signer.Algorithm) string {
	tb.Helper()
	id := make([]byte, 8)
	rand.Read(id)
	var err error
	if alg.Curve() != nil {
		_, err = ctx.GenerateECDSAKeyPair(id, alg.Curve())
	} else {
		_, err = ctx.GenerateRSAKeyPair(id, alg.RSABits())
	}
	if err != nil {
		tb.Fatal(err)
	}
	uri := "pkcs11:id="
	for _, b := range id {
		uri += fmt.Sprintf("%%%02x", b)
	}
	return uri
}

// breakKey puts another key in the place of the one behind ref.
func breakKey(tb testing.TB, ctx *crypto11.Context, ref signer.Ref) {
	tb.Helper()
	id, label := unplug(tb, ctx, ref)
	if _, err := ctx.GenerateECDSAKeyPairWithLabel(id, []byte(label), elliptic.P256()); err != nil {
		tb.Fatal(err)
	}
}

// unplug deletes the key behind ref and returns its name.
func unplug(tb testing.TB, ctx *crypto11.Context, ref signer.Ref) (id []byte, label string) {
	tb.Helper()
	id, label = parts(tb, ref)
	pairs, err := ctx.FindKeyPairs(id, []byte(label))
	if err != nil || len(pairs) != 1 {
		tb.Fatalf("found %d keys: %v", len(pairs), err)
	}
	if err := pairs[0].Delete(); err != nil {
		tb.Fatal(err)
	}
	return id, label
}

func refOf(id []byte, label string) signer.Ref {
	return signer.Ref(fmt.Sprintf("pkcs11:v1:%x:%s", id, label))
}

// code classifies what Open of Modules fails with, when there is no backend to ask.
func code(err error) signer.Code { return (*pkcs11.Backend)(nil).Code(err) }
