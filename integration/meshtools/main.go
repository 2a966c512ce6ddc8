// Command meshtools stands in for the programs that the pages about Kuma and Kong
// Mesh use beside zonemint: kubectl, kumactl, helm and kuma-cp. It is the one whose
// name it is called by. Each does the little that the pages ask of it, and is as
// strict about what it is given as the real one.
//
// What has to outlive a process, the control planes that were started, is kept in the
// folder that MESHTOOLS_STATE names.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
)

// patience is how long a program may take.
const patience = 30 * time.Second

func main() {
	if err := run(filepath.Base(os.Args[0]), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(1)
	}
}

func run(name string, args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tools := map[string]func() *cobra.Command{"kubectl": newKubectl, "kumactl": newKumactl, "helm": newHelm, "kuma-cp": newKumaCP}
	tool, ok := tools[name]
	if !ok {
		return fmt.Errorf("nothing stands in for %s", name)
	}
	cmd := tool()
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	cmd.SetArgs(args)
	return cmd.ExecuteContext(ctx)
}

// group returns a command that does nothing without one of its own commands.
func group(use string, commands ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		return fmt.Errorf("%s: it does nothing by itself", cmd.CommandPath())
	}}
	cmd.AddCommand(commands...)
	return cmd
}

// require marks flags without which a command does not run.
func require(cmd *cobra.Command, flags ...string) *cobra.Command {
	for _, f := range flags {
		_ = cmd.MarkFlagRequired(f) // the flag exists
	}
	return cmd
}
