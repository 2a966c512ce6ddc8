package agent_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/zonemint/zonemint/agent"
)

func aToken() agent.Token {
	return agent.Token{Raw: zoneToken("i", time.Unix(1_800_000_000, 0), life), ID: "i", ExpiresAt: time.Unix(1_800_003_600, 0)}
}

func TestACommandKnowsTheTokenByName(t *testing.T) {
	var out bytes.Buffer
	c := agent.Command{
		Args: []string{"sh", "-c", `echo "$ZONEMINT_AGENT_JTI $ZONEMINT_AGENT_EXPIRES_AT $ZONEMINT_AGENT_FILE $1"; env`, "sh", "a  b;c"},
		Env:  []string{"ZONEMINT_AGENT_FILE=/f"}, Timeout: time.Minute, Output: &out,
	}
	must(t, c.Run(t.Context(), aToken()))
	if want := "i 2027-01-15T09:00:00Z /f a  b;c\n"; !strings.HasPrefix(out.String(), want) {
		t.Errorf("printed %.100q, want %q", out.String(), want)
	}
	if strings.Contains(out.String(), aToken().Raw) {
		t.Error("the environment has the token")
	}
}

func TestCommandsThatFail(t *testing.T) {
	for name, c := range map[string]agent.Command{
		"exit status 7": {Args: []string{"sh", "-c", "exit 7"}, Timeout: time.Minute},
		"was killed":    {Args: []string{"sleep", "60"}, Timeout: 10 * time.Millisecond},
		"not found":     {Args: []string{"zonemint-no-such-program"}, Timeout: time.Minute},
	} {
		if err := c.Run(t.Context(), aToken()); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestASignalArrives(t *testing.T) {
	child := exec.Command("sleep", "60")
	must(t, child.Start())
	path := filepath.Join(t.TempDir(), "pid")
	must(t, os.WriteFile(path, []byte(fmt.Sprintln(child.Process.Pid)), 0o600))
	must(t, agent.Signal{Signal: syscall.SIGTERM, PIDFile: path}.Run(t.Context(), aToken()))
	if err := child.Wait(); err == nil || err.Error() != "signal: terminated" {
		t.Error("the process ended with", err)
	}
	if err := (agent.Signal{Signal: syscall.SIGTERM, PID: child.Process.Pid}).Run(t.Context(), aToken()); err == nil {
		t.Error("a process that is gone got a signal")
	}
}

func TestSignalsToGroupsAndToItselfAreRefused(t *testing.T) {
	received := make(chan os.Signal, 1)
	signal.Notify(received, syscall.SIGUSR1)
	defer signal.Stop(received)
	path := filepath.Join(t.TempDir(), "pid")
	for _, text := range []string{"", "0", "-1", "-5", "x", "1 2", fmt.Sprint(os.Getpid()), strings.Repeat("1", 100)} {
		must(t, os.WriteFile(path, []byte(text), 0o600))
		if err := (agent.Signal{Signal: syscall.SIGUSR1, PIDFile: path}).Run(t.Context(), aToken()); err == nil {
			t.Errorf("%q was accepted", text)
		}
	}
	if len(received) > 0 {
		t.Error("this process got the signal")
	}
	if err := (agent.Signal{Signal: syscall.SIGUSR1, PIDFile: path + "x"}).Run(t.Context(), aToken()); err == nil {
		t.Error("a file that is not there was read")
	}
}
