package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// settings are what tests choose of a configuration.
type settings struct {
	keysets  []keyset      // a zone keyset with fast keys if there are none
	leaseTTL time.Duration // the default if it is 0
	more     string        // further lines
}

type keyset struct{ name, profile, algorithm string }

// installation is zonemint as an operator has it: a configuration, an instance
// key, an administrator's API token and a database. Servers come and go.
type installation struct {
	dir        string
	config     string // the file
	db         database
	admin      string // the API token
	adminToken string // its file
}

// install sets zonemint up, short of the administrator's API token: making that
// would set up the database too.
func install(t *testing.T, db database, s settings) *installation {
	t.Helper()
	dir := t.TempDir()
	in := &installation{dir: dir, db: db, config: filepath.Join(dir, "zonemint.yaml")}
	key := filepath.Join(dir, "instance.key")
	zonemint(t, "instance-key", "generate", key).must(t)
	in.configure(t, in.config, key, s)
	return in
}

// installAdmin also makes the administrator's API token.
func installAdmin(t *testing.T, db database, s settings) *installation {
	t.Helper()
	in := install(t, db, s)
	in.makeAdmin(t)
	return in
}

func (in *installation) makeAdmin(t *testing.T) {
	t.Helper()
	in.adminToken = filepath.Join(in.dir, "admin.token")
	zonemint(t, "admin-token", "create", "--config", in.config, "--out", in.adminToken).must(t)
	text, err := os.ReadFile(in.adminToken)
	if err != nil {
		t.Fatal(err)
	}
	in.admin = strings.TrimSpace(string(text))
}

// configure writes a configuration.
func (in *installation) configure(t *testing.T, path, instanceKey string, s settings) {
	t.Helper()
	if s.keysets == nil {
		s.keysets = []keyset{{"zone", "zone", "ES256"}}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "listen: 127.0.0.1:0\nprivate_listen: 127.0.0.1:0\n")
	fmt.Fprintf(&b, "database:\n  %s: %q\n  migrate: true\n", in.db.setting, in.db.value)
	fmt.Fprintf(&b, "instance_key:\n  file: %q\nkeysets:\n", instanceKey)
	for _, k := range s.keysets {
		fmt.Fprintf(&b, "  - name: %s\n    profile: %s\n    algorithm: %s\n", k.name, k.profile, k.algorithm)
	}
	if s.leaseTTL > 0 {
		fmt.Fprintf(&b, "lease_ttl: %s\n", s.leaseTTL)
	}
	b.WriteString(s.more)
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
}

// verifyLedger has zonemint itself look for faults in the ledger. No server may
// be running.
func (in *installation) verifyLedger(t *testing.T) {
	t.Helper()
	if o := zonemint(t, "ledger", "verify", "--config", in.config); o.code != 0 {
		t.Errorf("zonemint ledger verify: exit code %d\n%s%s", o.code, o.stdout, o.stderr)
	}
}

// server is a process that serves.
type server struct {
	public, private string // addresses
	log             *transcript
	cmd             *exec.Cmd
	exited          chan struct{}
}

// start starts a server and waits until it listens. If it still runs when the
// test ends, it is killed.
func (in *installation) start(t *testing.T) *server {
	t.Helper()
	s := launch(t, in.config)
	s.awaitListening(t)
	return s
}

// awaitListening waits until the server listens.
func (s *server) awaitListening(t *testing.T) {
	t.Helper()
	select {
	case at := <-s.log.listening:
		s.public, s.private = at.Public, at.Private
	case <-s.exited:
		t.Fatalf("the server ended with exit code %d before it listened", s.cmd.ProcessState.ExitCode())
	case <-time.After(2 * time.Minute):
		t.Fatal("the server does not listen")
	}
}

// launch starts a server and does not wait.
func launch(t *testing.T, config string) *server {
	t.Helper()
	return launchCommand(t, exec.Command(os.Getenv(binaryVariable), "serve", "--config", config))
}

// launchCommand starts a server by a command of its own.
func launchCommand(t *testing.T, cmd *exec.Cmd) *server {
	t.Helper()
	s := &server{log: newTranscript(), exited: make(chan struct{}), cmd: cmd}
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	dieWithParent(s.cmd)
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = s.cmd.Wait() // the state says how it ended
		close(s.exited)
	}()
	t.Cleanup(func() {
		s.kill()
		if t.Failed() {
			t.Logf("the log of process %d, %s:\n%s", s.cmd.Process.Pid, s.cmd.ProcessState, s.log.tail())
		}
	})
	return s
}

// kill ends the server without giving it a chance to do anything, if it still
// runs.
func (s *server) kill() {
	_ = s.cmd.Process.Kill() // it has ended if this fails
	<-s.exited
}

// running says whether the server has not ended yet.
func (s *server) running() bool {
	select {
	case <-s.exited:
		return false
	default:
		return true
	}
}

// stop asks the server to end, and wants it to end well and soon. It returns how
// long that took.
func (s *server) stop(t *testing.T) time.Duration {
	t.Helper()
	start := time.Now()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal("the server has ended by itself:", err)
	}
	if code := s.wait(t, 12*time.Second); code != 0 {
		t.Errorf("exit code %d after SIGTERM, want 0", code)
	}
	return time.Since(start)
}

// wait waits for the end of the server and returns its exit code.
func (s *server) wait(t *testing.T, patience time.Duration) int {
	t.Helper()
	if took := settles(patience, func() bool { return !s.running() }); s.running() {
		t.Fatalf("the server still runs after %s", took)
	}
	return s.cmd.ProcessState.ExitCode()
}

// transcript keeps what a server prints, and listens for where it listens.
type transcript struct {
	listening chan addresses

	mu   sync.Mutex
	text bytes.Buffer
	seen int // how much of text has been looked at, line by line
}

type addresses struct{ Msg, Public, Private string }

func newTranscript() *transcript { return &transcript{listening: make(chan addresses, 1)} }

// Write implements [io.Writer].
func (l *transcript) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.Write(p)
	for {
		rest := l.text.Bytes()[l.seen:]
		end := bytes.IndexByte(rest, '\n')
		if end < 0 {
			return len(p), nil
		}
		l.seen += end + 1
		var at addresses
		if json.Unmarshal(rest[:end], &at) == nil && at.Msg == "listening" {
			l.listening <- at
		}
	}
}

// String returns everything that was printed.
func (l *transcript) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *transcript) tail() string {
	const most = 4 << 10
	text := l.String()
	if len(text) > most {
		return "…" + text[len(text)-most:]
	}
	return text
}
