package pkcs11

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zonemint/zonemint/signer"
)

func wantCode(t *testing.T, what string, err error, want signer.Code) {
	t.Helper()
	if got, ok := known(err); !ok || got != want {
		t.Errorf("%s: got %v, want code %q", what, err, want)
	}
}

func TestOptionsThatCannotWorkAreRefused(t *testing.T) {
	good := Options{Module: "/lib/hsm.so", TokenLabel: "zonemint", PINFile: "/run/pin"}
	if _, err := good.complete(); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*Options){
		"no module":            func(o *Options) { o.Module = "" },
		"a relative module":    func(o *Options) { o.Module = "hsm.so" },
		"no token":             func(o *Options) { o.TokenLabel = "" },
		"a token named twice":  func(o *Options) { o.TokenSerial = "1234" },
		"no PIN":               func(o *Options) { o.PINFile = "" },
		"two PINs":             func(o *Options) { o.PINEnv = "PIN" },
		"another two PINs":     func(o *Options) { o.PINCommand = []string{"cat", "/run/pin"} },
		"one session":          func(o *Options) { o.MaxSessions = 1 },
		"less than no session": func(o *Options) { o.MaxSessions = -1 },
		"a negative wait":      func(o *Options) { o.PoolWait = -1 },
		"a negative timeout":   func(o *Options) { o.CallTimeout = -1 },
		"EdDSA":                func(o *Options) { o.Algorithms = []signer.Algorithm{signer.ES256, signer.EdDSA} },
	} {
		opts := good
		spoil(&opts)
		_, err := opts.complete()
		wantCode(t, name, err, signer.Misconfigured)
	}
}

func TestPINSources(t *testing.T) {
	const secret = "31415926"
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	t.Setenv("ZONEMINT_TEST_PIN", secret)
	t.Setenv("ZONEMINT_TEST_NO_PIN", "")
	for name, c := range map[string]struct {
		opts Options
		ok   bool
	}{
		"a file":                      {Options{PINFile: file("pin", secret+"\n")}, true},
		"a file without an end":       {Options{PINFile: file("bare", secret)}, true},
		"a file of another system":    {Options{PINFile: file("crlf", secret+"\r\nnext\r\n")}, true},
		"an empty file":               {Options{PINFile: file("empty", "")}, false},
		"a file with an empty line":   {Options{PINFile: file("line", "\n"+secret)}, false},
		"a file with a zero byte":     {Options{PINFile: file("zero", secret+"\x00\n")}, false},
		"no file":                     {Options{PINFile: filepath.Join(dir, "none")}, false},
		"a variable":                  {Options{PINEnv: "ZONEMINT_TEST_PIN"}, true},
		"an empty variable":           {Options{PINEnv: "ZONEMINT_TEST_NO_PIN"}, false},
		"a command":                   {Options{PINCommand: []string{"echo", secret}}, true},
		"a command, not a shell":      {Options{PINCommand: []string{"echo " + secret}}, false},
		"a command of several lines":  {Options{PINCommand: []string{"printf", secret + "\nmore"}}, true},
		"a command that says nothing": {Options{PINCommand: []string{"true"}}, false},
		"a command that fails":        {Options{PINCommand: []string{"sh", "-c", "echo " + secret + "; echo " + secret + " >&2; exit 1"}}, false},
	} {
		pin, err := c.opts.fetchPIN(t.Context())
		if c.ok && (err != nil || pin != secret) {
			t.Errorf("%s: got %q and %v", name, pin, err)
		}
		if !c.ok {
			wantCode(t, name, err, signer.Misconfigured)
			if name != "a command, not a shell" && strings.Contains(err.Error(), secret) {
				t.Errorf("%s: the error quotes the PIN", name)
			}
		}
	}
}

func TestAPINCommandEndsWithItsCaller(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := (Options{PINCommand: []string{"sleep", "60"}}).fetchPIN(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
