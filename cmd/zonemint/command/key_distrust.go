package command

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
)

func newKeyDistrust() *cobra.Command {
	var k keyChange
	cmd := &cobra.Command{
		Use:   "distrust" + useKey,
		Short: "Take a key out of the JWK set at once, with all tokens that it has signed",
		Long: `Take a key out of the JWK set at once, with all tokens that it has signed: for a
private key that somebody else may have. Its successor takes over if it was active.
It cannot be undone.

Verifiers may go on believing the key until they have fetched the JWK set anew; the
answer says for how long. If live tokens break you are asked to type the key's ID on
a terminal; elsewhere --force is needed.`,
		Example: `  zonemint key distrust zone 1 --plan
  zonemint key distrust zone 1 --reason 'incident 42' --force`,
		RunE: func(cmd *cobra.Command, args []string) error { return k.distrust(cmd, args) },
	}
	k.flags(cmd, "published", "active", "retiring")
	cmd.Flags().BoolVar(&k.force, "force", false, "go on though live tokens break, or verifiers may lack the successor")
	cmd.Flags().BoolVar(&k.sure, "yes", false, "with --force: do not ask on a terminal either")
	return cmd
}

func (k *keyChange) distrust(cmd *cobra.Command, args []string) error {
	c, name, err := k.open(cmd, args)
	if err != nil {
		return err
	}
	call := func(ctx context.Context, plan, force bool) (*pb.DistrustSigningKeyResponse, error) {
		return c.keys.DistrustSigningKey(ctx, &pb.DistrustSigningKeyRequest{
			Keyset: name.keyset, Serial: name.serial, Reason: k.reason, DryRun: plan, Force: force,
		})
	}
	force := k.force
	if !k.plan && (!k.force || !k.sure) {
		planned, err := call(cmd.Context(), true, true) // forced: the plan is what the person has to weigh
		if err != nil {
			return name.about(err)
		}
		if force, err = k.weigh(cmd, planned); err != nil {
			return err
		}
	}
	resp, err := call(cmd.Context(), k.plan, force)
	if err != nil {
		return name.about(orForce(err, force))
	}
	defer k.warnIfSilent(cmd, c, name.keyset)
	if err := k.show(cmd, resp); err != nil {
		return err
	}
	say(cmd.ErrOrStderr(), "%s", damage(resp, k.plan))
	return nil
}

// weigh lets a person decide when live tokens break, and returns whether to
// force.
func (k *keyChange) weigh(cmd *cobra.Command, planned *pb.DistrustSigningKeyResponse) (bool, error) {
	terminal := isTerminal(cmd.InOrStdin())
	switch {
	case planned.GetBrokenTokens() == 0 || k.force && !terminal:
		return k.force, nil
	case terminal:
		if err := printTables(cmd.ErrOrStderr(), stepTable(planned.GetSteps())); err != nil {
			return false, err
		}
		return true, confirm(cmd, damage(planned, true), label(planned.GetSigningKey()))
	default:
		return false, errors.New(damage(planned, true) + "\nNothing was done. Add --force to go on.")
	}
}

// damage says what distrusting a key breaks and what it does not reach yet.
func damage(resp *pb.DistrustSigningKeyResponse, plan bool) string {
	broke := "broke"
	if plan {
		broke = "would break"
	}
	text := fmt.Sprintf("This %s %s of %s.", broke, count(resp.GetBrokenTokens(), "live token"), label(resp.GetSigningKey()))
	if resp.GetBelievedFor() == nil {
		return text + " Nobody can tell how long verifiers may go on believing the key: see that each gets the new keys."
	}
	return text + fmt.Sprintf(" Verifiers may go on believing the key for %s.", orNone(span(resp.GetBelievedFor())))
}

// count puts a number before a noun.
func count(n int64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

func orNone(s string) string {
	if s == "" {
		return "no time"
	}
	return s
}
