package command

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
)

func newLegacyKey() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "key",
		Short: "Keys of old HS256 tokens",
		Long: `Keys of old HS256 tokens. They are secrets that a control plane has too. A key is
active, it issues; retiring, it only verifies; or removed. Neither the serial nor the
secret of a removed key can come back.`,
	}
	cmd.AddCommand(newLegacyKeyCreate(), newLegacyKeyList(), newLegacyKeyImport(), newLegacyKeyRotate(),
		newLegacyKeyRemove(), newLegacyKeyExport())
	return cmd
}

// legacyChange is what the flags of commands say that change keys.
type legacyChange struct {
	conn           connection
	reason         string
	serial, from   int32
	force, promote bool
	form           *choice
}

func (l *legacyChange) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&l.reason, "reason", "", "why, a `text` for the audit")
	l.form = outputFlag(cmd, asTable, asJSON)
	connectionFlags(cmd, &l.conn)
	useLegacyKind(cmd, completeLegacySerials(&l.conn))
}

// begin reads the arguments and opens the connection.
func (l *legacyChange) begin(cmd *cobra.Command, args []string) (c *client, kind pb.LegacyKind, serial int32, err error) {
	if kind, serial, err = legacyKeyArgs(args); err != nil {
		return nil, kind, serial, err
	}
	c, err = l.conn.open(cmd.ErrOrStderr())
	return c, kind, serial, err
}

func completeLegacySerials(c *connection) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return complete(c, func(ctx context.Context, server *client) ([]cobra.Completion, error) {
			kind, err := legacyKindOf(args[0])
			if err != nil || len(args) > 1 {
				return nil, err
			}
			resp, err := server.legacy.ListLegacyKeys(ctx, &pb.ListLegacyKeysRequest{Kind: kind})
			var out []cobra.Completion
			for _, k := range resp.GetKeys() {
				out = append(out, cobra.CompletionWithDesc(serialText(k.GetSerial()), k.GetState()))
			}
			return out, err
		})(cmd, args, typed)
	}
}

func newLegacyKeyCreate() *cobra.Command {
	var l legacyChange
	cmd := &cobra.Command{
		Use:   "create KIND",
		Short: "Make the first key for a kind of old token",
		Long: `Make a key for a kind of old token. It issues from then on. Give it to the control
plane with "zonemint legacy key export" before you use a token of it. To take over
the key that a control plane has use "zonemint legacy key import".`,
		Example: `  zonemint legacy key create control-plane
  zonemint legacy key create control-plane --serial 3`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, kind, _, err := l.begin(cmd, args)
			if err != nil {
				return err
			}
			resp, err := c.legacy.CreateLegacyKey(cmd.Context(), &pb.CreateLegacyKeyRequest{Kind: kind, Serial: l.serial, Reason: l.reason})
			if err != nil {
				return err
			}
			return show(cmd, l.form, resp, legacyKeyTable([]*pb.LegacyKey{resp.GetKey()}))
		},
	}
	cmd.Flags().Int32Var(&l.serial, "serial", 0, "its `number`, if the control plane uses lower ones already (default: the next)")
	l.flags(cmd)
	return cmd
}

func newLegacyKeyList() *cobra.Command {
	var conn connection
	var form *choice
	cmd := &cobra.Command{
		Use:     "list [KIND]",
		Short:   "List the keys of old tokens, without their secrets",
		Example: `  zonemint legacy key list control-plane`,
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				args = legacyKinds()
			}
			c, err := conn.open(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			all, err := listLegacyKeys(cmd.Context(), c, args)
			if err != nil {
				return err
			}
			return show(cmd, form, all, legacyKeyTable(all.GetKeys()))
		},
	}
	useLegacyKind(cmd, nil)
	form = outputFlag(cmd, asTable, asJSON)
	connectionFlags(cmd, &conn)
	return cmd
}

// listLegacyKeys lists the keys of those kinds that are on. It fails if none is.
func listLegacyKeys(ctx context.Context, c *client, kinds []string) (*pb.ListLegacyKeysResponse, error) {
	all, off := &pb.ListLegacyKeysResponse{}, 0
	for _, name := range kinds {
		kind, err := legacyKindOf(name)
		if err != nil {
			return nil, err
		}
		resp, err := c.legacy.ListLegacyKeys(ctx, &pb.ListLegacyKeysRequest{Kind: kind})
		if isOff(err) {
			if off++; off < len(kinds) {
				continue
			}
		}
		if err != nil {
			return nil, err
		}
		all.Keys = append(all.Keys, resp.GetKeys()...)
	}
	return all, nil
}

func newLegacyKeyRotate() *cobra.Command {
	var l legacyChange
	cmd := &cobra.Command{
		Use:   "rotate KIND",
		Short: "Make another key, which issues from now on",
		Long: `Make another key, which issues from now on. The one before it goes on verifying here,
until "zonemint legacy key remove" takes it away. Export the new key to the control
plane before a token of it is used: a control plane has one key for zone-ingress
tokens, so that there a new one ends the tokens of the old.`,
		Example: `  zonemint legacy key rotate control-plane --from-serial 1`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, kind, _, err := l.begin(cmd, args)
			if err != nil {
				return err
			}
			resp, err := c.legacy.RotateLegacyKey(cmd.Context(), &pb.RotateLegacyKeyRequest{Kind: kind, FromSerial: l.from, Reason: l.reason})
			if err != nil {
				return err
			}
			return show(cmd, l.form, resp, legacyKeyTable(resp.GetKeys()))
		},
	}
	cmd.Flags().Int32Var(&l.from, "from-serial", 0, "only if the key with this `number` issues, so that asking again does not rotate twice")
	l.flags(cmd)
	return cmd
}

func newLegacyKeyRemove() *cobra.Command {
	var l legacyChange
	cmd := &cobra.Command{
		Use:   "remove KIND SERIAL",
		Short: "Trust a key no more, and none of its tokens: the only way to revoke them",
		Long: `Trust a key no more, and so none of its tokens. There is no other way to revoke an old
token. It cannot be undone: the secret is erased and does not come back. Control
planes that have the key go on trusting it until it is deleted there too.`,
		Example: `  zonemint legacy key remove control-plane 1 --reason 'all zones have moved'`,
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, kind, serial, err := l.begin(cmd, args)
			if err != nil {
				return err
			}
			resp, err := c.legacy.RemoveLegacyKey(cmd.Context(), &pb.RemoveLegacyKeyRequest{
				Kind: kind, Serial: serial, Force: l.force, Reason: l.reason,
			})
			if err != nil {
				return err
			}
			say(cmd.ErrOrStderr(), "Control planes trust it until you delete the GlobalSecret %s there.", resp.GetKey().GetSecretName())
			return show(cmd, l.form, resp, legacyKeyTable([]*pb.LegacyKey{resp.GetKey()}))
		},
	}
	cmd.Flags().BoolVar(&l.force, "force", false, "go on though the key issues, or is the last that verifies")
	l.flags(cmd)
	return cmd
}

func newLegacyKeyImport() *cobra.Command {
	var l legacyChange
	var file secretFile
	var proof string
	cmd := &cobra.Command{
		Use:   "import KIND --secret-file FILE",
		Short: "Take over the key that a control plane has",
		Long: `Take over the key of old tokens that a control plane has, so that its tokens are good
here and it takes those of here. It issues if no other key does, or with --issue.

The file has the GlobalSecret as "kumactl get global-secret NAME -o yaml" or "kubectl
get secret NAME -o yaml" print it, or its bytes, raw, in base64 or in PEM. A serial
cannot be used again for other bytes, so prove that they are right with a token of
the control plane (--proof-token).`,
		Example: `  zonemint legacy key import control-plane --secret-file secret.yaml --proof-token west.token
  zonemint legacy key import control-plane --secret-file secret.der --format raw --serial 2 --issue`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			kind, _, err := legacyKeyArgs(args)
			if err != nil {
				return err
			}
			return l.importKey(cmd, kind, &file, proof)
		},
	}
	file.flags(cmd, "secret-file", "the `file` with the secret")
	cmd.Flags().Int32Var(&l.serial, "serial", 0, "the `number` under which the control plane has it (default: what the file or the token says, or the next)")
	cmd.Flags().StringVar(&proof, "proof-token", "", "a `file` with a token that the control plane made with it")
	cmd.Flags().BoolVar(&l.promote, "issue", false, "issue with it, in place of the key that does")
	l.flags(cmd)
	_ = cmd.MarkFlagRequired("secret-file") // the flag exists
	return cmd
}

func (l *legacyChange) importKey(cmd *cobra.Command, kind pb.LegacyKind, file *secretFile, proof string) error {
	secret, serial, err := file.read(cmd, legacyKindName(kind), l.serial)
	if err != nil {
		return usage{fmt.Errorf("--secret-file: %w", err)}
	}
	defer clear(secret)
	if err := proveSecret(kind, secret, &serial, proof); err != nil {
		return usage{fmt.Errorf("--proof-token: %w", err)}
	}
	c, err := l.conn.open(cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	key, err := l.add(cmd.Context(), c, kind, secret, serial)
	if err != nil {
		return err
	}
	return show(cmd, l.form, key, legacyKeyTable([]*pb.LegacyKey{key}))
}

// add adds a secret, as the key that issues if that was asked for.
func (l *legacyChange) add(ctx context.Context, c *client, kind pb.LegacyKind, secret []byte, serial int32) (*pb.LegacyKey, error) {
	if !l.promote {
		resp, err := c.legacy.CreateLegacyKey(ctx, &pb.CreateLegacyKeyRequest{Kind: kind, Secret: secret, Serial: serial, Reason: l.reason})
		return resp.GetKey(), err
	}
	resp, err := c.legacy.RotateLegacyKey(ctx, &pb.RotateLegacyKeyRequest{Kind: kind, Secret: secret, Serial: serial, Reason: l.reason})
	return resp.GetKey(), err
}
