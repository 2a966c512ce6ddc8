package command

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/service/legacy"
	"github.com/zonemint/zonemint/token"
)

// legacyToken is what the flags of commands say that issue old tokens.
type legacyToken struct {
	kind   legacy.Kind
	conn   connection
	zone   string
	key    secretFile // offline only
	serial int32
	form   *choice
}

// legacyHelp says what old tokens are, for both commands.
const legacyHelp = `It never expires, it has no ID, and only the removal of its key revokes it. It is in
the audit and not in the ledger. Servers have it off unless their configuration says
otherwise. A zone token %s takes its place.

With --signing-key-path no server is asked: the token is made here, with the secret
from a file, and nobody has a record of it.`

func newGenerateControlPlaneToken() *cobra.Command {
	t := &legacyToken{kind: legacy.ControlPlane}
	cmd := &cobra.Command{
		Use:   "control-plane-token --zone ZONE",
		Short: "Issue an old token by which a zone's control plane proves who it is (Kong Mesh 1.x)",
		Long: "Issue a control-plane token of Kong Mesh 1.x. " +
			fmt.Sprintf(legacyHelp, `(generate zone-token --scope cp)`),
		Example: `  zonemint generate control-plane-token --zone west > west.token
  zonemint generate control-plane-token --zone west --signing-key-path secret.der --serial 1`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return t.run(cmd) },
	}
	cmd.Flags().Int32Var(&t.serial, "serial", 0, "with --signing-key-path: the key's `number`, which the token carries")
	t.flags(cmd)
	cmd.MarkFlagsRequiredTogether("signing-key-path", "serial")
	return cmd
}

func newGenerateZoneIngressToken() *cobra.Command {
	t := &legacyToken{kind: legacy.ZoneIngress}
	cmd := &cobra.Command{
		Use:   "zone-ingress-token --zone ZONE",
		Short: "Issue an old token by which a zone's ingress proves who it is (Kuma 1.x)",
		Long: "Issue a zone-ingress token of Kuma 1.x. " +
			fmt.Sprintf(legacyHelp, `(generate zone-token --scope ingress)`),
		Example: `  zonemint generate zone-ingress-token --zone west > west.token`,
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return t.run(cmd) },
	}
	t.flags(cmd)
	return cmd
}

func (t *legacyToken) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&t.zone, "zone", "", "the `name` of the zone")
	t.key.flags(cmd, "signing-key-path", "make it here, with the secret in this `file`")
	t.form = outputFlag(cmd, asToken, asJSON)
	connectionFlags(cmd, &t.conn)
	_ = cmd.MarkFlagRequired("zone") // the flag exists
}

func (t *legacyToken) run(cmd *cobra.Command) error {
	switch {
	case !token.ValidZoneName(t.zone):
		return usage{fmt.Errorf("--zone: %q is not 1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit", t.zone)}
	case t.key.path == "" && cmd.Flags().Changed("format"):
		return usage{errors.New("--format goes with --signing-key-path")}
	}
	issue := t.online
	if t.key.path != "" {
		issue = t.offline
	}
	made, err := issue(cmd)
	if err != nil {
		return err
	}
	warn(cmd.ErrOrStderr(), "this token never expires, and only the removal of its key revokes it")
	if t.form.value == asJSON {
		return showJSON(cmd, made)
	}
	return bare(cmd.OutOrStdout(), made.GetToken())
}

func (t *legacyToken) online(cmd *cobra.Command) (*pb.IssueControlPlaneTokenResponse, error) {
	c, err := t.conn.open(cmd.ErrOrStderr())
	if err != nil {
		return nil, err
	}
	return issueLegacy(cmd.Context(), c, t.kind, t.zone)
}

// issueLegacy asks a server. The answers of both kinds have the same fields.
func issueLegacy(ctx context.Context, c *client, kind legacy.Kind, zone string) (*pb.IssueControlPlaneTokenResponse, error) {
	if kind == legacy.ControlPlane {
		return c.tokens.IssueControlPlaneToken(ctx, &pb.IssueControlPlaneTokenRequest{Zone: zone})
	}
	resp, err := c.tokens.IssueZoneIngressToken(ctx, &pb.IssueZoneIngressTokenRequest{Zone: zone})
	return &pb.IssueControlPlaneTokenResponse{Token: resp.GetToken(), Serial: resp.GetSerial()}, err
}

func (t *legacyToken) offline(cmd *cobra.Command) (*pb.IssueControlPlaneTokenResponse, error) {
	secret, serial, err := t.key.read(cmd, string(t.kind), t.serial)
	if err != nil {
		return nil, usage{fmt.Errorf("--signing-key-path: %w", err)}
	}
	key, err := legacy.NewMAC(secret)
	if err != nil {
		return nil, usage{err}
	}
	raw, err := legacy.Token{Zone: t.zone, Serial: int(serial)}.Encode(t.kind, key)
	if err != nil {
		return nil, usage{err}
	}
	warn(cmd.ErrOrStderr(), "nobody has a record of this token")
	return &pb.IssueControlPlaneTokenResponse{Token: raw, Serial: serial}, nil
}
