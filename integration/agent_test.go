package integration

import (
	"encoding/json"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/zonemint/zonemint/token"
)

// anAgent is the command line of an agent for zone east.
func anAgent(s *server, tokenFile, out string, more ...string) []string {
	return append([]string{
		"agent", "zone", "--addr", "http://" + s.public, "--token-file", tokenFile, "--zone", "east", "--valid-for", "1h", "--out", out,
	}, more...)
}

// startAgent starts one and waits until there is a token and it heeds signals.
func startAgent(t *testing.T, args []string) *server {
	t.Helper()
	a := launchCommand(t, exec.Command(os.Getenv(binaryVariable), args...))
	eventually(t, time.Minute, "an agent has a token", func() bool {
		return strings.Contains(a.log.String(), "health and metrics") && strings.Contains(a.log.String(), "jti")
	})
	return a
}

// TestAgentKillNine kills agents that are busy renewing. Somebody reads the file all
// the time, and finds a token that a control plane accepts.
func TestAgentKillNine(t *testing.T) {
	db := newSQLite(t, t.TempDir())
	in := installAdmin(t, db, settings{})
	s := in.start(t)
	dir := t.TempDir()
	out := filepath.Join(dir, "zone.token")
	args := anAgent(s, in.adminToken, out, "--metrics-listen", "127.0.0.1:0")
	zonemint(t, append(anAgent(s, in.adminToken, out), "--once")...).must(t)
	seen := startReading(t, out, s.keys(t, "zone"))
	leftovers := 0
	for range rounds(20, 200) {
		a := startAgent(t, args)
		before := fileText(t, out)
		_ = a.cmd.Process.Signal(syscall.SIGHUP) // it has not ended, or the wait says so
		eventually(t, time.Minute, "a token is renewed", func() bool { return fileText(t, out) != before })
		end := time.After(between(20*time.Millisecond, 200*time.Millisecond))
		for busy := true; busy; {
			select {
			case <-end:
				busy = false
			case <-time.After(time.Duration(rand.IntN(3)) * time.Millisecond):
				_ = a.cmd.Process.Signal(syscall.SIGHUP) // the end comes with the kill
			}
		}
		a.kill()
		leftovers += len(inFolder(t, dir)) - 2
	}
	tokens := seen()
	t.Logf("%d tokens were read, %d half-written files were left", len(tokens), leftovers)
	if len(tokens) < 10 {
		t.Error("hardly anything was renewed, so little was shown")
	}
	zonemint(t, append(anAgent(s, in.adminToken, out), "--once")...).must(t)
	if got := inFolder(t, dir); !slices.Equal(got, []string{".zone.token.zonemint-lock", "zone.token"}) {
		t.Errorf("the folder has %q", got)
	}
	s.stop(t)
	db.wantRows(t, tokens)
	in.verifyLedger(t)
}

// startReading reads the file as fast as it can, until the returned function is
// called, which returns the tokens that were in it.
func startReading(t *testing.T, path string, keys token.KeySource) func() []issued {
	t.Helper()
	v, err := token.NewVerifier[token.ZoneClaims](keys, token.Options{})
	if err != nil {
		t.Fatal(err)
	}
	stop, done := make(chan struct{}), make(chan struct{})
	var tokens []issued
	go func() {
		defer close(done)
		last := ""
		for {
			select {
			case <-stop:
				return
			default:
			}
			text, err := os.ReadFile(path)
			if err != nil {
				t.Error("reading the file:", err)
				return
			}
			if string(text) == last {
				time.Sleep(100 * time.Microsecond)
				continue
			}
			last = string(text)
			good, err := v.Verify(t.Context(), last, token.RequireZone("east"))
			if err != nil {
				t.Errorf("the file has %d bytes that are no good token: %v", len(last), err)
				return
			}
			tokens = append(tokens, issued{zone: "east", token: last, jti: good.Claims.ID})
		}
	}()
	return func() []issued {
		close(stop)
		<-done
		return tokens
	}
}

func inFolder(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// TestAgentThroughAnOutage has the server die and an agent be asked for a new token
// meanwhile. A command tells who was told.
func TestAgentThroughAnOutage(t *testing.T) {
	in := installAdmin(t, newSQLite(t, t.TempDir()), settings{})
	s := in.start(t)
	dir := t.TempDir()
	out, told := filepath.Join(dir, "zone.token"), filepath.Join(dir, "told")
	script := `echo "$ZONEMINT_AGENT_JTI" >> ` + told + `; cmp -s "$ZONEMINT_AGENT_FILE" ` + out
	a := startAgent(t, anAgent(s, in.adminToken, out, "--metrics-listen", "127.0.0.1:0", "--", "sh", "-c", script))
	before := fileText(t, out)
	s.kill()
	if err := a.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "the agent has noticed", func() bool { return strings.Count(a.log.String(), "kind=unavailable") > 1 })
	if fileText(t, out) != before || strings.Contains(a.log.String(), before) {
		t.Error("the old token is gone, or in the log")
	}
	a.stop(t)
	again := in.start(t)
	next := startAgent(t, anAgent(again, in.adminToken, out, "--metrics-listen", "127.0.0.1:0", "--", "sh", "-c", script))
	if fileText(t, out) != before {
		t.Error("a good token was replaced at the start")
	}
	if err := next.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "there is a new token", func() bool { return fileText(t, out) != before })
	eventually(t, 20*time.Second, "it was told three times", func() bool { return strings.Count(fileText(t, told), "\n") == 3 })
	next.stop(t)
	jtis := strings.Fields(fileText(t, told))
	if jtis[0] != jtis[1] || jtis[1] == jtis[2] {
		t.Errorf("the command was told of %q", jtis)
	}
}

func fileText(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestAgentDiskFull has no room for the new token: the old one stays.
func TestAgentDiskFull(t *testing.T) {
	in := installAdmin(t, newSQLite(t, t.TempDir()), settings{})
	s := in.start(t)
	dir := t.TempDir()
	mountSmall(t, dir, "64k")
	out, ballast := filepath.Join(dir, "zone.token"), filepath.Join(dir, "ballast")
	a := startAgent(t, anAgent(s, in.adminToken, out, "--metrics-listen", "127.0.0.1:0"))
	before := fileText(t, out)
	fill(t, ballast)
	if err := a.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "the agent has noticed", func() bool { return strings.Count(a.log.String(), "no space left") > 1 })
	if fileText(t, out) != before {
		t.Error("the old token is gone")
	}
	if got := inFolder(t, dir); !slices.Equal(got, []string{".zone.token.zonemint-lock", "ballast", "zone.token"}) {
		t.Errorf("the folder has %q", got)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	eventually(t, 90*time.Second, "there is a new token", func() bool { return fileText(t, out) != before })
	a.stop(t)
}

// TestAgentOnce is an init container with an API token that is narrowed to its zone.
func TestAgentOnce(t *testing.T) {
	in := installAdmin(t, newSQLite(t, t.TempDir()), settings{})
	s := in.start(t)
	dir := t.TempDir()
	narrow, out := filepath.Join(dir, "api.token"), filepath.Join(dir, "zone.token")
	zonemint(t, "api-token", "create", "--addr", "http://"+s.public, "--token-file", in.adminToken, "--name", "east", "--role", "issuer",
		"--zone", "east", "--scope", "ingress,egress", "--max-valid-for", "24h", "--out", narrow).must(t)
	o := zonemint(t, append(anAgent(s, narrow, out), "--once", "-o", "json")...)
	var printed struct{ JTI, Kid, ExpiresAt, Place string }
	if err := json.Unmarshal([]byte(o.must(t)), &printed); err != nil {
		t.Fatal(err)
	}
	wantValid(t, s.keys(t, "zone"), issued{zone: "east", token: fileText(t, out), jti: printed.JTI})
	if expires, err := time.Parse(time.RFC3339, printed.ExpiresAt); err != nil || time.Until(expires) > time.Hour || printed.Kid == "" || printed.Place != out {
		t.Errorf("printed %+v", printed)
	}
	for name, tc := range map[string]struct {
		more []string
		code int
		says string
	}{
		"another zone": {[]string{"--zone", "west"}, 3, "not for zone"},
		"nobody there": {[]string{"--zone", "north", "--addr", "http://127.0.0.1:1", "--timeout", "2s"}, 4, "no token after 2s"},
		"no file":      {[]string{"--out", dir}, 1, "is not a file"},
		"no life":      {[]string{"--valid-for", "1s"}, 2, "no time for renewing"},
	} {
		o := zonemint(t, append(anAgent(s, narrow, out), append(tc.more, "--once")...)...)
		if o.code != tc.code || !strings.Contains(o.stderr, tc.says) {
			t.Errorf("%s: exit code %d, want %d\n%s", name, o.code, tc.code, o.stderr)
		}
	}
	wantValid(t, s.keys(t, "zone"), issued{zone: "east", token: fileText(t, out), jti: printed.JTI})
	s.stop(t)
}
