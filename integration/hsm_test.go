package integration

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
)

// Where Debian has the modules.
const (
	softHSM   = "/usr/lib/softhsm/libsofthsm2.so"
	p11Client = "/usr/lib/x86_64-linux-gnu/pkcs11/p11-kit-client.so"
	hsmPIN    = "31415926"
)

// hsm is a token of SoftHSM that is reached through "p11-kit server", which can
// be killed and started again.
type hsm struct {
	dir, socket string
	process     hsmProcess
}

func newHSM(t *testing.T) *hsm {
	t.Helper()
	for _, program := range []string{"p11-kit", "softhsm2-util", "go"} {
		need(t, program)
	}
	for _, module := range []string{softHSM, p11Client} {
		if _, err := os.Stat(module); err != nil {
			missing(t, "this test needs "+module)
		}
	}
	if !bytes.Contains([]byte(run(t, "go", "version", "-m", os.Getenv(binaryVariable)).must(t)), []byte("CGO_ENABLED=1")) {
		missing(t, "this test needs a zonemint that was built with cgo")
	}
	dir, err := os.MkdirTemp("", "zonemint-hsm-") //nolint:usetesting // names of sockets are short, and those of tests are long
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	h := &hsm{dir: dir, socket: filepath.Join(dir, "hsm.sock")}
	h.write(t, "softhsm2.conf", "directories.tokendir = "+dir+"\nobjectstore.backend = file\nlog.level = ERROR\n")
	h.write(t, "pin", hsmPIN+"\n")
	t.Setenv("SOFTHSM2_CONF", filepath.Join(dir, "softhsm2.conf"))
	t.Setenv("P11_KIT_SERVER_ADDRESS", "unix:path="+h.socket)
	run(t, "softhsm2-util", "--init-token", "--free", "--label", "zonemint", "--pin", hsmPIN, "--so-pin", "so"+hsmPIN).must(t)
	h.start(t)
	t.Cleanup(h.kill)
	return h
}

func (h *hsm) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(h.dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// start starts the HSM and waits until it takes connections: before that, its
// token looks absent.
func (h *hsm) start(t *testing.T) {
	t.Helper()
	_ = os.Remove(h.socket)
	h.process = startGroup(t, exec.Command("p11-kit", "server", "-f", "-n", h.socket, "--provider", softHSM, "pkcs11:token=zonemint"))
	eventually(t, 10*time.Second, "the HSM listens", func() bool {
		conn, err := net.Dial("unix", h.socket)
		if err == nil {
			shut(conn)
		}
		return err == nil
	})
}

// kill ends the HSM together with its connections.
func (h *hsm) kill() { h.process.kill() }

// settings has all keys made in the HSM.
func (h *hsm) settings() settings {
	return settings{
		keysets: []keyset{{"zone", "zone", "RS256"}},
		more: fmt.Sprintf("default_backend: hsm\nbackends:\n  hsm:\n    type: pkcs11\n    module: %s\n    token_label: zonemint\n    pin_file: %s\n",
			p11Client, filepath.Join(h.dir, "pin")),
	}
}

// TestHSMDiesAndComesBack kills the HSM under 32 clients who ask for tokens, and
// starts it again, over and over. While it is away requests fail at once, and
// two seconds after its return there are tokens again, from the same server.
func TestHSMDiesAndComesBack(t *testing.T) {
	const clients, deadline, resumes = 32, 10 * time.Second, 2 * time.Second
	h := newHSM(t)
	db := newSQLite(t, t.TempDir())
	in := installAdmin(t, db, h.settings())
	s := in.start(t)
	l := &load{}
	speak := []client{s.overConnect(t, in.admin), s.overGRPC(t, in.admin)}
	for i := range clients {
		l.callers.Go(func() { l.ask(t.Context(), speak[i%len(speak)], fmt.Sprintf("load-%d", i), 0) })
	}
	t.Cleanup(func() { l.stop() })
	eventually(t, 10*time.Second, "there are tokens", func() bool { return l.received() > clients })

	for range rounds(3, 10) {
		h.kill()
		wantRefused(t, speak[0], 2*time.Second, connect.CodeUnavailable)
		time.Sleep(between(0, 1500*time.Millisecond)) // so that the owner is met at every step of its back-off
		if status := s.live(t); status != 200 {
			t.Errorf("the HSM is away and the server counts as dead: status %d", status)
		}
		wantValid(t, s.keys(t, "zone"), sampleOf(l)...)
		before := l.received()
		h.start(t)
		took := eventually(t, 10*time.Second, "there are tokens again", func() bool { return l.received() > before })
		t.Logf("tokens again %s after the HSM came back", took.Round(time.Millisecond))
		if took > resumes {
			t.Errorf("that is more than %s", resumes)
		}
		before = l.received()
		eventually(t, 10*time.Second, "everybody gets tokens", func() bool { return l.received() > before+2*clients })
	}

	tokens, failures := l.stop()
	wantCodes(t, failures, connect.CodeUnavailable)
	for _, f := range failures {
		if f.took > 2*deadline {
			t.Errorf("a request took %s, its deadline was %s", f.took, deadline)
		}
	}
	wantValid(t, s.keys(t, "zone"), tokens...)
	wantDistinct(t, tokens)
	if log := s.log.String(); strings.Contains(log, hsmPIN) {
		t.Error("the log contains the PIN")
	}
	s.stop(t)
	rows := db.wantRows(t, tokens)
	t.Logf("%d tokens received, %d requests failed, %d rows in the ledger", len(tokens), len(failures), rows)
	in.verifyLedger(t)
}

// sampleOf returns some of the tokens so far.
func sampleOf(l *load) []issued {
	l.mu.Lock()
	defer l.mu.Unlock()
	return sample(l.tokens, 50)
}

// TestHSMThatLacksAnAlgorithm has a server refuse to start with EdDSA keys in an HSM.
func TestHSMThatLacksAnAlgorithm(t *testing.T) {
	h := newHSM(t)
	s := h.settings()
	s.more += "    algorithms: [EdDSA]\n"
	in := installAdmin(t, newSQLite(t, t.TempDir()), s)
	o := zonemint(t, "serve", "--config", in.config)
	if o.code == 0 || !strings.Contains(o.stderr, "no EdDSA keys") {
		t.Errorf("exit code %d\n%s", o.code, o.stderr)
	}
}
