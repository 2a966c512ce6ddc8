package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/zonemint/zonemint/agent"
)

// after is what the flags say is done when there is a new token.
type after struct {
	timeout time.Duration
	signal  *choice
	pidFile string
	pid     int
}

func (a *after) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.DurationVar(&a.timeout, "exec-timeout", 30*time.Second, "how long the command after \"--\" may take")
	a.signal = choiceFlag(cmd, "signal", "", "", slices.Sorted(maps.Keys(signals())), "send this signal when there is a new token; with --pid-file or --pid")
	f.StringVar(&a.pidFile, "pid-file", "", "the `file` with the ID of the process that gets --signal")
	f.IntVar(&a.pid, "pid", 0, "the `ID` of the process that gets --signal")
	cmd.MarkFlagsMutuallyExclusive("pid-file", "pid")
}

func signals() map[string]syscall.Signal {
	return map[string]syscall.Signal{
		"HUP": syscall.SIGHUP, "INT": syscall.SIGINT, "TERM": syscall.SIGTERM, "USR1": syscall.SIGUSR1, "USR2": syscall.SIGUSR2,
	}
}

func (a *after) check(command []string) error {
	whom := a.pidFile != "" || a.pid != 0
	switch {
	case a.signal.value != "" && len(command) > 0:
		return errors.New("--signal and a command after \"--\" exclude each other")
	case a.signal.value != "" && !whom:
		return errors.New("--signal: name the process with --pid-file or --pid")
	case a.signal.value == "" && whom:
		return errors.New("--pid-file and --pid are for --signal")
	case a.pid < 0:
		return fmt.Errorf("--pid: %d is not the ID of a process", a.pid)
	case a.timeout <= 0:
		return errors.New("--exec-timeout must be longer than nothing")
	default:
		return nil
	}
}

// hook returns what to do, nil if that is nothing.
func (a *after) hook(command, env []string, output io.Writer) func(context.Context, agent.Token) error {
	switch {
	case a.signal.value != "":
		return agent.Signal{Signal: signals()[a.signal.value], PID: a.pid, PIDFile: a.pidFile}.Run
	case len(command) > 0:
		return agent.Command{Args: command, Env: env, Timeout: a.timeout, Output: output}.Run
	default:
		return nil
	}
}
