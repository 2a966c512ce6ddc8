package command

import (
	"errors"

	"github.com/spf13/cobra"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
)

// rotation is what the flags of "key rotate" say.
type rotation struct {
	conn             connection
	now, force, plan bool
	backend, adopt   string
	reason           string
	wait             bool
	form             *choice
}

func newKeyRotate() *cobra.Command {
	var r rotation
	cmd := &cobra.Command{
		Use:   "rotate KEYSET",
		Short: "Let the published successor take over, as soon as every verifier has it",
		Long: `Ask for a rotation: the published successor takes over as soon as every verifier
has it. The server does that by itself; the steps are printed, with what each waits
for. The key that signs now goes on verifying until its last token has expired.

With --adopt the successor is a key that the backend holds already and zonemint did
not make. That takes an administrator whose credential is not narrowed.

With --now the successor takes over at once, or the command fails and says who may
not have it yet; --force does not care. With --wait the command ends when the
successor signs. Interrupting it does not stop the rotation.`,
		Example: `  zonemint key rotate zone --plan
  zonemint key rotate zone --wait --timeout 10m
  zonemint key rotate zone --now --reason 'incident 42'
  zonemint key rotate zone --backend hsm --reason 'moving to the HSM'
  zonemint key rotate zone --backend hsm --adopt 'pkcs11:object=mesh-2026'`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return r.run(cmd, args[0]) },
	}
	cmd.ValidArgsFunction = completeKeysetArg(&r.conn)
	f := cmd.Flags()
	f.BoolVar(&r.now, "now", false, "let the successor take over within this call")
	f.BoolVar(&r.force, "force", false, "with --now: also if verifiers may not have it yet")
	f.BoolVar(&r.plan, "plan", false, "say what would happen, and do nothing")
	f.BoolVar(&r.wait, "wait", false, "show progress until the successor signs")
	f.StringVar(&r.backend, "backend", "", "the `name` of the backend of new keys from now on; the successor is then made there first")
	f.StringVar(&r.adopt, "adopt", "", "take over the key that the backend knows by this `name` instead of making one")
	f.StringVar(&r.reason, "reason", "", "why, a `text` for the audit")
	r.form = outputFlag(cmd, asTable, asJSON)
	connectionFlags(cmd, &r.conn)
	f.Lookup("timeout").Usage = "how long to wait for an answer, and if it is given, with --wait in all"
	cmd.MarkFlagsMutuallyExclusive("plan", "wait")
	cmd.MarkFlagsMutuallyExclusive("now", "adopt")
	return cmd
}

func (r rotation) run(cmd *cobra.Command, keyset string) error {
	if r.force && !r.now {
		return usage{errors.New("--force goes with --now; without it the rotation waits for every verifier")}
	}
	c, err := r.conn.open(cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	req := &pb.RotateKeysetRequest{
		Keyset: keyset, Backend: r.backend, Adopt: r.adopt, Now: r.now, Reason: r.reason, DryRun: r.plan, Force: r.force,
	}
	if !r.plan {
		if req.FromSerial, err = signing(cmd, c, keyset); err != nil {
			return err
		}
	}
	resp, err := c.keys.RotateKeyset(cmd.Context(), req)
	if err != nil {
		if r.now {
			err = orForce(err, r.force)
		}
		return err
	}
	if r.form.value == asJSON {
		if r.wait {
			if err := r.await(cmd, c, resp); err != nil {
				return err
			}
			if err := refresh(cmd, c, keyset, resp); err != nil {
				return err
			}
		}
		return showJSON(cmd, resp)
	}
	if err := printTables(cmd.OutOrStdout(), stepTable(resp.GetSteps())); err != nil {
		return err
	}
	switch {
	case r.plan:
		say(cmd.ErrOrStderr(), "This is a plan; nothing was done.")
	case r.wait:
		return r.await(cmd, c, resp)
	}
	return nil
}

// signing returns the serial that signs, 0 if none does. A rotation names it, so
// that one which is asked for twice at the same time does not go two keys ahead.
func signing(cmd *cobra.Command, c *client, keyset string) (int32, error) {
	keys, err := c.keys.ListSigningKeys(cmd.Context(), &pb.ListSigningKeysRequest{Keyset: keyset})
	if err != nil {
		return 0, err
	}
	for _, k := range keys.GetSigningKeys() {
		if k.GetState() == "active" && k.GetRole() != "standby" {
			return k.GetSerial(), nil
		}
	}
	return 0, nil
}

// refresh brings the keys of an answer up to date.
func refresh(cmd *cobra.Command, c *client, keyset string, resp *pb.RotateKeysetResponse) error {
	keys, err := c.keys.ListSigningKeys(cmd.Context(), &pb.ListSigningKeysRequest{Keyset: keyset})
	if err != nil {
		return err
	}
	resp.SigningKeys = nil
	for _, k := range keys.GetSigningKeys() {
		if !ended(k.GetState()) {
			resp.SigningKeys = append(resp.SigningKeys, k)
		}
	}
	return nil
}

// ended says whether a key in this state is never used again.
func ended(state string) bool {
	switch state {
	case "removed", "distrusted", "abandoned", "failed":
		return true
	default:
		return false
	}
}
