//go:build cgo && linux

package pkcs11_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zonemint/zonemint/backends/pkcs11"
	"github.com/zonemint/zonemint/signer"
)

// away are options for an HSM that need not be there.
func (h *hsm) away() pkcs11.Options {
	opts := h.options256()
	opts.MayBeAway = true
	return opts
}

// untilMade waits until a key can be made, and returns it.
func untilMade(tb testing.TB, b signer.Backend) *signer.Key {
	tb.Helper()
	begin := time.Now()
	for {
		s := newSpec(signer.ES256)
		var key *signer.Key
		ref, err := signer.Create(tb.Context(), b, s)
		if err == nil {
			key, err = signer.Open(tb.Context(), b, s, ref, nil)
		}
		if err == nil {
			tb.Logf("a key was made %v after the HSM was there", time.Since(begin))
			return key
		}
		if code := signer.CodeOf(err); code != signer.Unavailable {
			tb.Fatalf("while the HSM was away: %v", err)
		}
		if time.Since(begin) > patience {
			tb.Fatalf("the HSM is there and yet: %v", err)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func TestABackendIsOpenedWhileTheHSMIsAway(t *testing.T) {
	h := newHSM(t)
	var modules pkcs11.Modules
	before := open(t, &modules, h.options256())
	s := newSpec(signer.ES256)
	ref, err := signer.Create(t.Context(), before, s)
	if err != nil {
		t.Fatal(err)
	}
	if err := before.Close(); err != nil {
		t.Fatal(err)
	}
	h.kill()

	b := open(t, &modules, h.away())
	if algs := b.Traits().Algorithms; !slices.Equal(algs, []signer.Algorithm{signer.ES256}) {
		t.Errorf("it offers %v", algs)
	}
	began := time.Now()
	for range 100 {
		_, err := signer.Open(t.Context(), b, s, ref, nil)
		wantCode(t, "a key of an HSM that was never there", err, signer.Unavailable)
	}
	if took := time.Since(began); took > patience/2 {
		t.Errorf("100 calls took %v: they wait for an HSM that is away", took)
	}
	if s := b.Stats(); s.DownSince.IsZero() || s.Reconnects != 0 {
		t.Errorf("stats while the HSM is away: %+v", s)
	}

	h.start(t)
	newcomer := untilMade(t, b)
	key, err := signer.Open(t.Context(), b, s, ref, nil)
	if err != nil {
		t.Fatalf("the key of before: %v", err)
	}
	for _, k := range []*signer.Key{key, newcomer} {
		if err := k.Probe(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if s := b.Stats(); !s.DownSince.IsZero() || s.Reconnects != 1 || s.Tokens[0].Sessions != 1 {
		t.Errorf("stats when it is there: %+v", s)
	}
	// From now on it is like any other backend.
	h.kill()
	if err := waitCode(t, key); signer.CodeOf(err) != signer.Unavailable {
		t.Errorf("the HSM is dead and the error is %v", err)
	}
	h.start(t)
	untilSigns(t, key)
}

// Who has no time to wait is told, and what is at fault in the configuration is told
// to everybody.
func TestWhoMustHaveTheHSMIsToldThatItIsAway(t *testing.T) {
	h := newHSM(t)
	var modules pkcs11.Modules
	mistyped := h.away()
	mistyped.TokenLabel = "mistyped"
	_, err := modules.Open(t.Context(), mistyped)
	wantCode(t, "a label that no token has", err, signer.Misconfigured)
	h.kill()
	_, err = modules.Open(t.Context(), h.options256())
	wantCode(t, "an HSM that must be there", err, signer.Unavailable)
	wrong := h.away()
	wrong.Module = filepath.Join(t.TempDir(), "nothing.so")
	_, err = modules.Open(t.Context(), wrong)
	wantCode(t, "a module that is not there", err, signer.Misconfigured)
	wrong = h.away()
	wrong.PINEnv = "ZONEMINT_TEST_UNSET"
	_, err = modules.Open(t.Context(), wrong)
	wantCode(t, "no PIN", err, signer.Misconfigured)
}

// The far side of p11-kit is there, and the HSM behind it is not.
func TestAnHSMWithoutATokenIsAway(t *testing.T) {
	h := newHSM(t)
	h.kill()
	label := h.label
	h.label = "nobodys"
	h.start(t)
	h.label = label
	var modules pkcs11.Modules
	_, err := modules.Open(t.Context(), h.options256())
	wantCode(t, "no slot", err, signer.Unavailable)
	b := open(t, &modules, h.away())
	h.kill()
	h.start(t)
	untilMade(t, b)
}

// restrict has programs that are started from now on find tokens that can do no
// more than this.
func restrict(t *testing.T, mechanisms string) {
	t.Helper()
	conf := filepath.Join(t.TempDir(), "softhsm2.conf")
	text, err := os.ReadFile(os.Getenv(confNamed))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(conf, append(text, "slots.mechanisms = "+mechanisms+"\n"...), fileMode); err != nil {
		t.Fatal(err)
	}
	t.Setenv(confNamed, conf)
}

func TestAlgorithmsThatAreMissingShowWhenTheHSMComes(t *testing.T) {
	h := newHSM(t)
	h.kill()
	for name, c := range map[string]struct {
		configured []signer.Algorithm
		want       signer.Code
	}{
		"configured":     {[]signer.Algorithm{signer.RS256, signer.ES256}, signer.Misconfigured},
		"not configured": {nil, signer.Unsupported},
	} {
		t.Run(name, func(t *testing.T) {
			var log lockedBuffer
			opts := h.away()
			opts.Algorithms, opts.Logger = c.configured, slog.New(slog.NewTextHandler(&log, nil))
			var modules pkcs11.Modules
			b := open(t, &modules, opts)
			if algs := b.Traits().Algorithms; !slices.Contains(algs, signer.RS256) || slices.Contains(algs, signer.EdDSA) {
				t.Errorf("it offers %v", algs)
			}
			restrict(t, "CKM_EC_KEY_PAIR_GEN,CKM_ECDSA")
			h.start(t)
			t.Cleanup(h.kill)
			if err := untilMade(t, b).Probe(t.Context()); err != nil {
				t.Errorf("an algorithm that it has: %v", err)
			}
			_, err := signer.Create(t.Context(), b, newSpec(signer.RS256))
			wantCode(t, "making a key that the token cannot", err, c.want)
			_, err = signer.Open(t.Context(), b, newSpec(signer.RS256), signer.Ref(unknownRef), nil)
			wantCode(t, "opening a key that the token cannot have", err, c.want)
			if said := strings.Contains(log.String(), "lacks algorithms"); said != (c.configured != nil) {
				t.Errorf("the log: %s", log.String())
			}
		})
	}
}

// lockedBuffer is for loggers of several goroutines.
type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// A PIN that is wrong when the HSM comes is tried once, as ever.
func TestAWrongPINShowsWhenTheHSMComes(t *testing.T) {
	h := newHSM(t)
	h.kill()
	var modules pkcs11.Modules
	opts := h.away()
	opts.PINEnv = wrongEnv
	b := open(t, &modules, opts)
	h.start(t)
	s := newSpec(signer.ES256)
	_, err := signer.Create(t.Context(), b, s)
	for begin := time.Now(); signer.CodeOf(err) == signer.Unavailable && time.Since(begin) < patience; _, err = signer.Create(t.Context(), b, s) {
		time.Sleep(2 * time.Millisecond)
	}
	wantCode(t, "a wrong PIN", err, signer.Denied)
	if s := b.Stats(); !s.Tokens[0].Denied {
		t.Errorf("stats: %+v", s)
	}
	_, err = modules.Open(t.Context(), h.away())
	wantCode(t, "the right PIN after a wrong one", err, signer.Denied)
}

// Nobody waits for long for an HSM that hangs when the backend is opened.
func TestABackendIsOpenedWhileTheHSMHangs(t *testing.T) {
	h := newHSM(t)
	resume := h.stall()
	defer resume()
	var modules pkcs11.Modules
	opts := h.away()
	opts.CallTimeout = 500 * time.Millisecond
	b := open(t, &modules, opts)
	_, err := signer.Create(t.Context(), b, newSpec(signer.ES256))
	wantCode(t, "an HSM that hangs", err, signer.Unavailable)
	if errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the call waited: %v", err)
	}
	resume()
	if err := untilMade(t, b).Probe(t.Context()); err != nil {
		t.Error(err)
	}
}

// Two backends wait for two tokens of a module, one of which was opened when the
// module was down already.
func TestSeveralBackendsWaitForTheHSM(t *testing.T) {
	h := newHSM(t)
	h.kill()
	var modules pkcs11.Modules
	opts := h.away()
	one, same := open(t, &modules, opts), open(t, &modules, opts)
	other := opts
	other.TokenLabel = newToken(t)
	two := open(t, &modules, other)
	_, err := modules.Open(t.Context(), h.options256())
	wantCode(t, "one that must have it", err, signer.Unavailable)
	h.start(t, other.TokenLabel)
	for _, b := range []*pkcs11.Backend{one, same, two} {
		if err := untilMade(t, b).Probe(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if all := modules.Stats(); len(all) != 1 || len(all[0].Tokens) != 2 {
		t.Errorf("stats: %+v", all)
	}
}
