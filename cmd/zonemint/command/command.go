// Package command is zonemint's command line.
package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"github.com/zonemint/zonemint/signer"
	"github.com/zonemint/zonemint/store"
)

// Exit codes. They are part of the interface; docs/cli.md lists them.
const (
	exitOK          = 0
	exitFailure     = 1 // anything else
	exitUsage       = 2 // the command line or the configuration is wrong
	exitDenied      = 3 // the server refused the credential or the right
	exitUnavailable = 4 // the server, its database or its backend did not answer; try again
	exitInvalid     = 5 // verify: the token is not valid
	exitFound       = 6 // key reconcile: a backend has keys that the database does not know
)

// IO is where a command reads and writes. Results go to Out, all else to Err.
type IO struct {
	In       io.Reader
	Out, Err io.Writer
}

// Std returns the process's own streams.
func Std() IO { return IO{os.Stdin, os.Stdout, os.Stderr} }

// Run runs the command that args name and returns the exit code.
func Run(ctx context.Context, args []string, streams IO) int {
	root := newRoot(streams) //nolint:contextcheck // commands have the context that cobra passes on
	root.SetArgs(args)
	began := false
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		// Cobra would check these next; here they still count as usage.
		if err := errors.Join(cmd.ValidateRequiredFlags(), cmd.ValidateFlagGroups()); err != nil {
			return err
		}
		began = true
		return nil
	}
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	say(streams.Err, "zonemint: %s", describe(err))
	if !began {
		say(streams.Err, "See %q.", cmd.CommandPath()+" --help")
		return exitUsage
	}
	return exitCode(err)
}

func newRoot(streams IO) *cobra.Command {
	root := &cobra.Command{
		Use:   "zonemint",
		Short: "Issue the tokens of a service mesh, with keys that stay where you want them",
		Long: `zonemint issues the signed tokens (JWTs) by which the zones, data planes and
users of a service mesh prove who they are.

Exit codes: 0 done; 1 failed; 2 the command line or the configuration is wrong;
3 the server refused the credential or the right; 4 the server, its database or
its backend did not answer, try again; 5 (verify) the token is not valid; 6 (key
reconcile) a backend has keys that the database does not know.`,
		Example: `  zonemint dev                               # try it
  zonemint serve --config zonemint.yaml      # run it
  zonemint generate zone-token --zone east --valid-for 24h > east.token
  zonemint verify east.token`,
		Version:       Version(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetIn(streams.In)
	root.SetOut(streams.Out)
	root.SetErr(streams.Err)
	root.AddCommand(commands()...)
	refuseUnknown([]*cobra.Command{root})
	return root
}

// refuseUnknown makes commands that only have subcommands refuse what is not
// one of them. Cobra would print their help and call it a success.
func refuseUnknown(cmds []*cobra.Command) {
	for _, cmd := range cmds {
		refuseUnknown(cmd.Commands())
		if cmd.Runnable() || !cmd.HasSubCommands() {
			continue
		}
		cmd.DisableFlagsInUseLine = true
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			text := fmt.Sprintf("unknown command %q for %q", args[0], cmd.CommandPath())
			cmd.SuggestionsMinimumDistance = 2
			if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
				text += ", did you mean " + strings.Join(near, " or ") + "?"
			}
			return errors.New(text)
		}
		cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	}
}

// commands lists every command.
func commands() []*cobra.Command {
	return []*cobra.Command{
		newDev(), newServe(), newMigrate(), newAdminToken(), newInstanceKey(), newBench(),
		newGenerate(), newVerify(), newKeyset(), newKey(), newRevocation(),
		newAPIToken(), newWhoAmI(), newAudit(), newLedger(), newLegacy(), newKuma(), newAgent(), newBackend(),
	}
}

// Version returns the version that the binary was built as.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(devel)"
	}
	return info.Main.Version
}

// usage is a fault of the command line or the configuration.
type usage struct{ error }

func (u usage) Unwrap() error { return u.error }

// coded is an error with an exit code of its own.
type coded struct {
	error
	code int
}

func (c coded) Unwrap() error { return c.error }

func exitCode(err error) int {
	if c, ok := errors.AsType[coded](err); ok {
		return c.code
	}
	if _, ok := errors.AsType[usage](err); ok {
		return exitUsage
	}
	if errors.Is(err, store.ErrUnavailable) || errors.Is(err, store.ErrUnknownOutcome) {
		return exitUnavailable
	}
	if c := signer.CodeOf(err); c == signer.Unavailable || c == signer.Throttled {
		return exitUnavailable
	}
	switch connect.CodeOf(err) {
	case connect.CodeUnauthenticated, connect.CodePermissionDenied:
		return exitDenied
	case connect.CodeUnavailable, connect.CodeDeadlineExceeded, connect.CodeResourceExhausted, connect.CodeAborted:
		return exitUnavailable
	case connect.CodeInvalidArgument:
		return exitUsage
	default:
		return exitFailure
	}
}

// describe returns an error's text, without the code's name that Connect puts
// in front of it.
func describe(err error) string {
	if e, ok := errors.AsType[*connect.Error](err); ok && e.Error() == err.Error() { // nothing around it
		return e.Message()
	}
	return err.Error()
}

// warn tells the user of something that does not stop the command.
func warn(w io.Writer, format string, args ...any) {
	say(w, "zonemint: warning: "+format, args...)
}

// say writes a line for a person. There is nowhere to report that this failed.
func say(w io.Writer, format string, args ...any) {
	_, _ = fmt.Fprintf(w, format+"\n", args...)
}
