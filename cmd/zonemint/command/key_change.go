package command

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
)

// changed is the answer to a change of one key.
type changed interface {
	proto.Message
	GetSteps() []*pb.PlannedStep
	GetSigningKey() *pb.SigningKey
}

// keyChange is what the flags of a command say that changes one key.
type keyChange struct {
	conn              connection
	reason            string
	plan, force, sure bool
	form              *choice
}

// flags adds the flags that all these commands have.
func (k *keyChange) flags(cmd *cobra.Command, states ...string) {
	cmd.Args = keyArgs
	cmd.ValidArgsFunction = completeKeyArgs(&k.conn, states...)
	cmd.Flags().StringVar(&k.reason, "reason", "", "why, a `text` for the audit")
	cmd.Flags().BoolVar(&k.plan, "plan", false, "say what would happen, and do nothing")
	k.form = outputFlag(cmd, asTable, asJSON)
	connectionFlags(cmd, &k.conn)
}

// open returns a client and the key that arguments name.
func (k *keyChange) open(cmd *cobra.Command, args []string) (*client, keyName, error) {
	c, err := k.conn.open(cmd.ErrOrStderr())
	if err != nil {
		return nil, keyName{}, err
	}
	name, err := findKey(cmd.Context(), c, args)
	return c, name, err
}

// show prints what happened, or would have.
func (k *keyChange) show(cmd *cobra.Command, resp changed) error {
	if err := show(cmd, k.form, resp, stepTable(resp.GetSteps())); err != nil {
		return err
	}
	key := resp.GetSigningKey()
	if k.plan {
		say(cmd.ErrOrStderr(), "This is a plan; nothing was done. The key is %s.", key.GetState())
		return nil
	}
	say(cmd.ErrOrStderr(), "%s is %s now.", label(key), key.GetState())
	return nil
}

// warnIfSilent says so if a change has left nothing to sign with.
func (k *keyChange) warnIfSilent(cmd *cobra.Command, c *client, keyset string) {
	if k.plan {
		return
	}
	resp, err := c.keys.ListSigningKeys(cmd.Context(), &pb.ListSigningKeysRequest{Keyset: keyset})
	signs := func(key *pb.SigningKey) bool { return key.GetState() == "active" }
	if err != nil || slices.ContainsFunc(resp.GetSigningKeys(), signs) { // the change itself is done and said
		return
	}
	warn(cmd.ErrOrStderr(), "no key of %s signs now: it issues nothing until a successor takes over.\n"+
		"\"zonemint key rotate %s --plan\" shows what that waits for, --now --force does not wait.", keyset, keyset)
}

// label names a key for people.
func label(k *pb.SigningKey) string {
	return cmp.Or(k.GetKid(), fmt.Sprintf("%s/%d", k.GetKeyset(), k.GetSerial()))
}

// orForce adds to a refusal that asks for force how to give it.
func orForce(err error, force bool) error {
	if force || connect.CodeOf(err) != connect.CodeFailedPrecondition || !strings.Contains(err.Error(), "force") {
		return err
	}
	return fmt.Errorf("%w\n--plan --force shows what that would do, --force does it", err)
}

func newKeyActivate() *cobra.Command {
	var k keyChange
	cmd := &cobra.Command{
		Use:   "activate" + useKey,
		Short: "Let a key sign: a published one, or a retiring one to undo an activation",
		Long: `Let a key sign: a published one, or a retiring one to undo an activation. The key
that signed until then goes on verifying. "zonemint key rotate" does the same for
the successor, when everybody has it.`,
		Example: `  zonemint key activate zone 2 --plan
  zonemint key activate zone 1 --reason 'back to the old key'`,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, name, err := k.open(cmd, args)
			if err != nil {
				return err
			}
			resp, err := c.keys.ActivateSigningKey(cmd.Context(), &pb.ActivateSigningKeyRequest{
				Keyset: name.keyset, Serial: name.serial, Reason: k.reason, DryRun: k.plan, Force: k.force,
			})
			if err != nil {
				return name.about(orForce(err, k.force))
			}
			return k.show(cmd, resp)
		},
	}
	k.flags(cmd, "published", "retiring")
	cmd.Flags().BoolVar(&k.force, "force", false, "activate it also if verifiers may not have it yet")
	return cmd
}

func newKeyRetire() *cobra.Command {
	var k keyChange
	cmd := &cobra.Command{
		Use:   "retire" + useKey,
		Short: "End what a key is doing",
		Long: `End what a key is doing: one that is being made is given up, a published one is
abandoned, an active one only verifies, a retiring one is removed from the JWK set.
Rotation does all this by itself in time; this is for when it should not wait.`,
		Example: `  zonemint key retire zone 1 --plan
  zonemint key retire zone 1 --reason 'its zones are gone'`,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, name, err := k.open(cmd, args)
			if err != nil {
				return err
			}
			resp, err := c.keys.RetireSigningKey(cmd.Context(), &pb.RetireSigningKeyRequest{
				Keyset: name.keyset, Serial: name.serial, Reason: k.reason, DryRun: k.plan, Force: k.force,
			})
			if err != nil {
				return name.about(orForce(err, k.force))
			}
			defer k.warnIfSilent(cmd, c, name.keyset)
			return k.show(cmd, resp)
		},
	}
	k.flags(cmd, "creating", "published", "active", "retiring")
	cmd.Flags().BoolVar(&k.force, "force", false, "go on if live tokens break with it, or nothing is left to sign with")
	return cmd
}

func newKeyDestroy() *cobra.Command {
	var k keyChange
	cmd := &cobra.Command{
		Use:   "destroy" + useKey,
		Short: "Destroy the private key of a serial that has ended, in its backend",
		Long: `Destroy the private key of a serial that is removed, distrusted, abandoned or
failed, in its backend. It cannot be undone. On a terminal you are asked to type the
key's ID; elsewhere --yes is needed.`,
		Example: `  zonemint key destroy zone 1 --plan
  zonemint key destroy zone 1 --reason 'rotated out' --yes`,
		RunE: func(cmd *cobra.Command, args []string) error { return k.destroy(cmd, args) },
	}
	k.flags(cmd, "removed", "distrusted", "abandoned", "failed")
	cmd.Flags().BoolVar(&k.force, "force", false, "take the key for destroyed also if the backend does not have it")
	cmd.Flags().BoolVar(&k.sure, "yes", false, "do not ask")
	return cmd
}

func (k *keyChange) destroy(cmd *cobra.Command, args []string) error {
	if !k.plan && !k.sure && !isTerminal(cmd.InOrStdin()) {
		return usage{errors.New("this cannot be undone, and there is no terminal to ask on: add --yes, or --plan to see what would happen")}
	}
	c, name, err := k.open(cmd, args)
	if err != nil {
		return err
	}
	call := func(ctx context.Context, plan bool) (*pb.DestroySigningKeyResponse, error) {
		return c.keys.DestroySigningKey(ctx, &pb.DestroySigningKeyRequest{
			Keyset: name.keyset, Serial: name.serial, Reason: k.reason, DryRun: plan, Force: k.force,
		})
	}
	if !k.plan && !k.sure {
		planned, err := call(cmd.Context(), true)
		if err != nil {
			return name.about(orForce(err, k.force))
		}
		key := planned.GetSigningKey()
		question := fmt.Sprintf("This destroys the private key of %s (%s, serial %d, %s) in backend %s. It cannot be undone.",
			label(key), key.GetKeyset(), key.GetSerial(), key.GetState(), key.GetBackend())
		if err := confirm(cmd, question, label(key)); err != nil {
			return err
		}
	}
	resp, err := call(cmd.Context(), k.plan)
	if err != nil {
		return name.about(orForce(err, k.force))
	}
	if err := show(cmd, k.form, resp, stepTable(resp.GetSteps())); err != nil || k.plan {
		return err
	}
	say(cmd.ErrOrStderr(), "The private key of %s is destroyed.", label(resp.GetSigningKey()))
	return nil
}
