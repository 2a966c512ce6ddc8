//go:build cgo && linux

package pkcs11_test

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/zonemint/zonemint/backends/pkcs11"
	"github.com/zonemint/zonemint/signer"
	"github.com/zonemint/zonemint/signer/signertest"
)

// patience is for machines with much else to do.
const patience = 2 * time.Minute

const p11Client = "/usr/lib/x86_64-linux-gnu/pkcs11/p11-kit-client.so"

// hsm is a token of SoftHSM behind "p11-kit server": PKCS#11 over a socket, whose
// far side can be stopped, killed and started again.
type hsm struct {
	label, socket string
	server        *exec.Cmd
}

func newHSM(tb testing.TB) *hsm {
	tb.Helper()
	need(tb, p11Client, "p11-kit")
	dir, err := os.MkdirTemp("", "zonemint-p11-") //nolint:usetesting // names of sockets are short, and those of tests are long
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	h := &hsm{label: newToken(tb), socket: filepath.Join(dir, "hsm.sock")}
	tb.Setenv("P11_KIT_SERVER_ADDRESS", "unix:path="+h.socket)
	h.start(tb)
	tb.Cleanup(h.kill)
	return h
}

// start starts the server, for the token and those with more labels, and waits until
// it listens.
func (h *hsm) start(tb testing.TB, more ...string) {
	tb.Helper()
	_ = os.Remove(h.socket)
	args := []string{"server", "-f", "-n", h.socket, "--provider", softHSM}
	for _, label := range append([]string{h.label}, more...) {
		args = append(args, "pkcs11:token="+label)
	}
	h.server = exec.Command("p11-kit", args...)
	h.server.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL} // it has a child for every connection
	if err := h.server.Start(); err != nil {
		tb.Fatal(err)
	}
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if conn, err := net.Dial("unix", h.socket); err == nil { // before that, its token looks absent
			_ = conn.Close()
			return
		}
	}
	tb.Fatal("p11-kit server does not listen")
}

func (h *hsm) signal(s syscall.Signal) { _ = syscall.Kill(-h.server.Process.Pid, s) }

// kill ends the server and every connection to it.
func (h *hsm) kill() {
	h.signal(syscall.SIGCONT)
	h.signal(syscall.SIGKILL)
	_ = h.server.Wait()
}

func (h *hsm) stall() (resume func()) {
	h.signal(syscall.SIGSTOP)
	return sync.OnceFunc(func() { h.signal(syscall.SIGCONT) })
}

func (h *hsm) options() pkcs11.Options { return options(p11Client, h.label) }

// options256 offer the algorithm whose keys are made fastest.
func (h *hsm) options256() pkcs11.Options {
	opts := h.options()
	opts.Algorithms = []signer.Algorithm{signer.ES256}
	return opts
}

func newKey(tb testing.TB, b signer.Backend, alg signer.Algorithm) *signer.Key {
	tb.Helper()
	s := newSpec(alg)
	ref, err := signer.Create(tb.Context(), b, s)
	if err != nil {
		tb.Fatal(err)
	}
	key, err := signer.Open(tb.Context(), b, s, ref, nil)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

func TestConformanceOverASocket(t *testing.T) {
	h := newHSM(t)
	var modules pkcs11.Modules
	signertest.Run(t, signertest.Harness{
		Open:       func(tb testing.TB) signer.Backend { return open(tb, &modules, h.options256()) },
		UnknownRef: signer.Ref(unknownRef),
		Secrets:    []string{pin, h.socket},
		Unbound:    true,
		PlantNamed: func(tb testing.TB, alg signer.Algorithm) string {
			return plantNamed(tb, raw(tb, softHSM, h.label, pin), alg)
		},
		UnknownName: "pkcs11:object=nobody",
		Stall: func(tb testing.TB) func() {
			resume := h.stall()
			tb.Cleanup(resume)
			return resume
		},
	})
}

// untilSigns waits until key signs, and returns how long that took.
func untilSigns(tb testing.TB, key *signer.Key) time.Duration {
	tb.Helper()
	begin := time.Now()
	for {
		ctx, cancel := context.WithTimeout(tb.Context(), 5*time.Second)
		err := key.Probe(ctx)
		cancel()
		if err == nil {
			return time.Since(begin)
		}
		if code := signer.CodeOf(err); code != signer.Unavailable {
			tb.Fatalf("while the HSM was away: %v", err)
		}
		if time.Since(begin) > patience {
			tb.Fatalf("the HSM is back and yet: %v", err)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func rounds(few, many int) int {
	if os.Getenv("ZONEMINT_PROVE") == "1" {
		return many
	}
	return few
}

func TestSigningResumesWhenTheHSMComesBack(t *testing.T) {
	h := newHSM(t)
	var modules pkcs11.Modules
	b := open(t, &modules, h.options())
	ec, rsa := newKey(t, b, signer.ES256), newKey(t, b, signer.RS256)
	var signed atomic.Int64
	stop := make(chan struct{})
	var clients sync.WaitGroup
	for i := range 32 {
		key := ec
		if i%4 == 0 {
			key = rsa
		}
		clients.Go(func() { signUntil(t, stop, key, &signed) })
	}
	n := rounds(3, 10)
	for range n {
		for want := signed.Load() + 200; signed.Load() < want; time.Sleep(time.Millisecond) {
			if t.Failed() {
				break
			}
		}
		h.kill()
		if err := waitCode(t, ec); signer.CodeOf(err) != signer.Unavailable {
			t.Errorf("the HSM is dead and the error is %v", err)
		}
		if b.Stats().DownSince.IsZero() {
			t.Error("the HSM is dead and the module counts as up")
		}
		h.start(t)
		t.Logf("signed again %v after the HSM came back", untilSigns(t, ec))
	}
	close(stop)
	clients.Wait()
	if got := b.Stats().Reconnects; got != uint64(n) {
		t.Errorf("reconnected %d times, want %d", got, n)
	}
}

// waitCode returns the first error of key.
func waitCode(tb testing.TB, key *signer.Key) error {
	tb.Helper()
	for range 1000 {
		if err := key.Probe(tb.Context()); err != nil {
			return err
		}
	}
	return nil
}

// signUntil signs in a loop. Every signature is verified by package signer.
func signUntil(tb testing.TB, stop <-chan struct{}, key *signer.Key, signed *atomic.Int64) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		ctx, cancel := context.WithTimeout(tb.Context(), patience)
		_, err := key.SignJWS(ctx, []byte("header.payload"))
		if ctx.Err() != nil {
			tb.Error("a signature took until its deadline")
		}
		cancel()
		switch {
		case err == nil:
			signed.Add(1)
		case signer.CodeOf(err) != signer.Unavailable:
			tb.Errorf("sign: %v", err)
			return
		default:
			time.Sleep(time.Millisecond)
		}
	}
}

// A hung HSM is like a dead one: whoever comes later does not wait for it.
func TestAnHSMThatHangsFailsCallsAtOnceUntilItAnswers(t *testing.T) {
	h := newHSM(t)
	var modules pkcs11.Modules
	opts := h.options256()
	opts.CallTimeout = 500 * time.Millisecond
	b := open(t, &modules, opts)
	key := untilMade(t, b)
	left := b.Stats().Tokens[0].Left
	resume := h.stall()
	defer resume()
	if code := signer.CodeOf(key.Probe(t.Context())); code != signer.Unavailable {
		t.Errorf("a call that hangs ends with %q", code)
	}
	err := key.Probe(t.Context())
	if code := signer.CodeOf(err); code != signer.Unavailable || !strings.Contains(err.Error(), "is down") {
		t.Errorf("the next call ends with %v", err)
	}
	if s := b.Stats(); s.DownSince.IsZero() || s.Tokens[0].InUse != 1 || s.Tokens[0].Left != left+1 {
		t.Errorf("stats of a module that hangs: %+v", s)
	}
	resume()
	untilSigns(t, key)
}

func TestOpenDoesNotWaitForAnHSMThatHangs(t *testing.T) {
	h := newHSM(t)
	var modules pkcs11.Modules
	resume := h.stall()
	defer resume()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := modules.Open(ctx, h.options256()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("open: %v", err)
	}
	resume()
	if err := newKey(t, open(t, &modules, h.options256()), signer.ES256).Probe(t.Context()); err != nil {
		t.Error(err)
	}
}

// Calls that hang cannot be ended. Close says so instead of waiting for ever.
func TestCloseDoesNotWaitForAnHSMThatHangs(t *testing.T) {
	h := newHSM(t)
	var modules pkcs11.Modules
	b, err := modules.Open(t.Context(), h.options256())
	if err != nil {
		t.Fatal(err)
	}
	key := newKey(t, b, signer.ES256)
	resume := h.stall()
	defer resume()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := key.Probe(ctx); err == nil {
		t.Error("a signature was made by an HSM that hangs")
	}
	if err := b.Close(); b.Code(err) != signer.Unavailable {
		t.Errorf("close: %v", err)
	}
	if code := signer.CodeOf(key.Probe(t.Context())); code != signer.Closed {
		t.Errorf("a signature after that ends with %q", code)
	}
}

func TestSessionsAreBoundedAndWaitsEnd(t *testing.T) {
	h := newHSM(t)
	var modules pkcs11.Modules
	opts := h.options256()
	opts.PoolWait = 20 * time.Millisecond
	b := open(t, &modules, opts)
	key := newKey(t, b, signer.ES256)
	resume := h.stall()
	defer resume()
	ctx, cancel := context.WithCancel(t.Context())
	var hung sync.WaitGroup
	hung.Go(func() { _ = key.Probe(ctx) })
	for b.Stats().Tokens[0].InUse < 1 {
		time.Sleep(time.Millisecond)
	}
	if code := signer.CodeOf(key.Probe(t.Context())); code != signer.Throttled {
		t.Errorf("a second call with one session ends with %q", code)
	}
	cancel()
	hung.Wait()
	if s := b.Stats().Tokens[0]; s.TimedOut != 1 || s.InUse != 1 || s.Left != 1 || s.Sessions != 1 {
		t.Errorf("stats: %+v", s)
	}
	resume()
	untilSignsAgain(t, key)
}

// untilSignsAgain is for a module that was never down but had no session free.
func untilSignsAgain(tb testing.TB, key *signer.Key) {
	tb.Helper()
	for begin := time.Now(); ; {
		err := key.Probe(tb.Context())
		if err == nil {
			return
		}
		if time.Since(begin) > patience {
			tb.Fatalf("it answers again and yet: %v", err)
		}
	}
}
