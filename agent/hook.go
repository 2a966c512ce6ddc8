package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// killDelay is how long to wait for what a command that was killed left open.
const killDelay = 2 * time.Second

// Command is run when there is a new token: a program and its arguments, without a
// shell in between. Its environment is the agent's, with ZONEMINT_AGENT_JTI and
// ZONEMINT_AGENT_EXPIRES_AT (RFC 3339), and what Env has. It does not have the token.
type Command struct {
	Args    []string
	Env     []string // "NAME=value"
	Timeout time.Duration
	Output  io.Writer // what it prints goes there, all of it
}

// Run runs the command to its end.
func (c Command) Run(ctx context.Context, t Token) error {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.Args[0], c.Args[1:]...)
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = c.Output, c.Output, killDelay
	cmd.Env = append(os.Environ(), "ZONEMINT_AGENT_JTI="+t.ID, "ZONEMINT_AGENT_EXPIRES_AT="+t.ExpiresAt.UTC().Format(time.RFC3339))
	cmd.Env = append(cmd.Env, c.Env...)
	err := cmd.Run()
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("%s did not end within %s and was killed", c.Args[0], c.Timeout)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", c.Args[0], err)
	}
	return nil
}

// Signal is sent to a process when there is a new token.
type Signal struct {
	Signal  syscall.Signal
	PID     int    // 0 if there is a PIDFile
	PIDFile string // read each time
}

// Run sends the signal.
func (s Signal) Run(context.Context, Token) error {
	pid, err := s.pid()
	if err != nil {
		return err
	}
	// Numbers below 1 mean whole groups of processes.
	if pid < 1 || pid == os.Getpid() {
		return fmt.Errorf("%d is not the ID of another process", pid)
	}
	p, err := os.FindProcess(pid)
	if err != nil {
		return fmt.Errorf("process %d: %w", pid, err)
	}
	if err := p.Signal(s.Signal); err != nil {
		return fmt.Errorf("signal to process %d: %w", pid, err)
	}
	return nil
}

func (s Signal) pid() (int, error) {
	if s.PIDFile == "" {
		return s.PID, nil
	}
	text, err := readUpTo(s.PIDFile, 64)
	if err != nil {
		return 0, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(text))
	if err != nil {
		return 0, fmt.Errorf("%s does not hold the ID of a process", s.PIDFile)
	}
	return pid, nil
}
