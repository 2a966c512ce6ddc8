package backends_test

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/tink-crypto/tink-go/v2/aead/subtle"

	"github.com/zonemint/zonemint/backends"
	"github.com/zonemint/zonemint/signer"
)

func deps(tb testing.TB) backends.Deps {
	tb.Helper()
	aead, err := subtle.NewAESGCM(make([]byte, 32))
	if err != nil {
		tb.Fatal(err)
	}
	return backends.Deps{AEAD: aead, Logger: slog.New(slog.DiscardHandler)}
}

// TestEveryBackendIsStrict walks the table: no backend takes a setting that it
// does not have, or repeats its value.
func TestEveryBackendIsStrict(t *testing.T) {
	names := backends.Names()
	if len(names) == 0 {
		t.Fatal("there is no backend")
	}
	for _, name := range names {
		cfg := backends.Config{name: {"no-such-setting": "hunter2"}}
		if err := cfg.Check(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		b, err := backends.Open(t.Context(), name, cfg, deps(t))
		if err == nil {
			_ = b.Close()
			t.Errorf("%s takes a setting that it does not have", name)
			continue
		}
		if text := err.Error(); !strings.Contains(text, "backend "+name) || !strings.Contains(text, "no-such-setting") {
			t.Errorf("%v names not both the backend and the setting", err)
		}
		if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%v repeats the value", err)
		}
	}
}

func TestOpenLocal(t *testing.T) {
	for name, tc := range map[string]struct {
		settings backends.Settings
		form     byte // first byte of a new key's reference, 0 if it cannot be opened
	}{
		"no settings":  {nil, 1},
		"empty":        {backends.Settings{}, 1},
		"secure":       {backends.Settings{"insecure": false}, 1},
		"insecure":     {backends.Settings{"insecure": true}, 2},
		"a text":       {backends.Settings{"insecure": "hunter2"}, 0},
		"a number":     {backends.Settings{"insecure": 1}, 0},
		"another case": {backends.Settings{"Insecure": true}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := backends.Open(t.Context(), "local", backends.Config{"local": tc.settings}, deps(t))
			if (err == nil) != (tc.form != 0) {
				t.Fatalf("got %v", err)
			}
			if err != nil {
				if strings.Contains(err.Error(), "hunter2") {
					t.Errorf("%v repeats the value", err)
				}
				return
			}
			defer func() { _ = b.Close() }()
			ref, err := signer.Create(t.Context(), b, signer.Spec{
				Keyset: "zone", Serial: 1, Label: signer.NewLabel(), Algorithm: signer.EdDSA,
			})
			if err != nil {
				t.Fatal(err)
			}
			if ref[0] != tc.form {
				t.Errorf("a new key is stored in form %d, want %d", ref[0], tc.form)
			}
		})
	}
}

func TestUnknownBackend(t *testing.T) {
	_, err := backends.Open(t.Context(), "Local", nil, deps(t))
	checked := backends.Config{"local": nil, "Local": nil}.Check()
	for _, err := range []error{err, checked} {
		if err == nil || !strings.Contains(err.Error(), `"Local"`) || !strings.Contains(err.Error(), strings.Join(backends.Names(), ", ")) {
			t.Errorf("%v does not list what there is", err)
		}
	}
	if err := (backends.Config{"local": nil}).Check(); err != nil {
		t.Error(err)
	}
}

func TestSeveralOfAKind(t *testing.T) {
	cfg := backends.Config{"first": {"type": "local"}, "second": {"type": "local", "insecure": true}}
	if err := cfg.Check(); err != nil {
		t.Fatal(err)
	}
	for name := range cfg {
		b, err := backends.Open(t.Context(), name, cfg, deps(t))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		_ = b.Close()
	}
	for name, settings := range map[string]backends.Settings{"unknown": {"type": "loco"}, "not text": {"type": 1}} {
		if _, err := backends.Open(t.Context(), "local", backends.Config{"local": settings}, deps(t)); err == nil {
			t.Errorf("%s: opened", name)
		}
	}
}
