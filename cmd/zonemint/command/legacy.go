package command

import (
	"errors"
	"fmt"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/service/legacy"
)

func newLegacy() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "legacy",
		Short: "Old HS256 tokens of Kuma and Kong Mesh: their keys, and the way to zone tokens",
		Long: `Old HS256 tokens: the control-plane tokens of Kong Mesh 1.x and the zone-ingress
tokens of Kuma 1.x. They never expire and have no ID, and whoever can verify one can
make one for any zone. Only the removal of their key revokes them.

A server has them off unless its configuration says otherwise (legacy_tokens). Use
them for as long as something cannot do without; "zonemint legacy migrate" shows the
way to zone tokens.`,
	}
	cmd.AddCommand(newLegacyKey(), newLegacyVerify(), newLegacyMigrate())
	return cmd
}

// legacyKinds returns the kinds of old tokens, as commands and the server name them.
func legacyKinds() []string {
	var out []string
	for _, k := range legacy.Kinds() {
		out = append(out, string(k))
	}
	return out
}

// legacyKindOf returns the kind that an argument names.
func legacyKindOf(name string) (pb.LegacyKind, error) {
	switch legacy.Kind(name) {
	case legacy.ControlPlane:
		return pb.LegacyKind_LEGACY_KIND_CONTROL_PLANE, nil
	case legacy.ZoneIngress:
		return pb.LegacyKind_LEGACY_KIND_ZONE_INGRESS, nil
	default:
		return 0, usage{fmt.Errorf("%q is no kind of old token: name one of %s", name, strings.Join(legacyKinds(), ", "))}
	}
}

func legacyKindName(k pb.LegacyKind) string {
	if k == pb.LegacyKind_LEGACY_KIND_ZONE_INGRESS {
		return string(legacy.ZoneIngress)
	}
	return string(legacy.ControlPlane)
}

// useLegacyKind makes the first argument of a command a kind, which shells complete.
// The others are completed by rest, if there is one.
func useLegacyKind(cmd *cobra.Command, rest cobra.CompletionFunc) {
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 && rest != nil {
			return rest(cmd, args, typed)
		}
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return legacyKinds(), cobra.ShellCompDirectiveNoFileComp
	}
}

// isOff says whether a call failed because old tokens of its kind are off.
func isOff(err error) bool {
	return connect.CodeOf(err) == connect.CodeFailedPrecondition && strings.Contains(err.Error(), "legacy tokens are off")
}

func newLegacyVerify() *cobra.Command {
	var conn connection
	var form *choice
	cmd := &cobra.Command{
		Use:   "verify KIND [TOKEN-FILE]",
		Short: "Say whether an old token is good here",
		Long: `Say whether an old token is made with a key that is trusted here. Exit code 5 means
that it is not; the reason is on stderr. The token comes from a file or from stdin.`,
		Example: `  zonemint legacy verify control-plane west.token`,
		Args:    cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			kind, err := legacyKindOf(args[0])
			if err != nil {
				return err
			}
			raw, err := readToken(cmd, args[1:])
			if err != nil {
				return usage{err}
			}
			return verifyLegacy(cmd, conn, form, &pb.VerifyLegacyTokenRequest{Kind: kind, Token: raw})
		},
	}
	useLegacyKind(cmd, func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return nil, cobra.ShellCompDirectiveDefault
	})
	form = outputFlag(cmd, asTable, asJSON)
	connectionFlags(cmd, &conn)
	return cmd
}

func verifyLegacy(cmd *cobra.Command, conn connection, form *choice, req *pb.VerifyLegacyTokenRequest) error {
	c, err := conn.open(cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	resp, err := c.legacy.VerifyLegacyToken(cmd.Context(), req)
	if err != nil {
		return err
	}
	if resp.GetValid() || form.value == asJSON {
		t := table{}
		t.add("valid", "true")
		t.add("zone", resp.GetZone())
		t.add("serial", serialText(resp.GetSerial()))
		if err := show(cmd, form, resp, t); err != nil {
			return err
		}
	}
	if !resp.GetValid() {
		return coded{fmt.Errorf("not valid (%s): %s", resp.GetReason(), resp.GetDetail()), exitInvalid}
	}
	return nil
}

// legacyKeyArgs wants a kind and, after it, a serial.
func legacyKeyArgs(args []string) (kind pb.LegacyKind, serial int32, err error) {
	if kind, err = legacyKindOf(args[0]); err != nil || len(args) == 1 {
		return kind, 0, err
	}
	if serial, err = parseSerial(args[1]); err != nil {
		return kind, 0, usage{errors.New(strings.Replace(err.Error(), "key list", "legacy key list", 1))}
	}
	return kind, serial, nil
}

func legacyKeyTable(keys []*pb.LegacyKey) table {
	t := table{header: []string{"KIND", "SERIAL", "STATE", "MADE", "GLOBAL SECRET", "CREATED", "RETIRED", "REMOVED"}}
	for _, k := range keys {
		made := "here"
		if k.GetImported() {
			made = "elsewhere"
		}
		t.add(legacyKindName(k.GetKind()), serialText(k.GetSerial()), k.GetState(), made, k.GetSecretName(),
			moment(k.GetCreatedAt()), moment(k.GetRetiredAt()), moment(k.GetRemovedAt()))
	}
	return t
}
