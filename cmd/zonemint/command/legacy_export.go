package command

import (
	"encoding/base64"
	"fmt"

	"github.com/spf13/cobra"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
)

func newLegacyKeyExport() *cobra.Command {
	var conn connection
	var namespace, reason, out string
	var form *choice
	cmd := &cobra.Command{
		Use:   "export KIND [SERIAL]",
		Short: "Print the secret of a key, for a control plane",
		Long: `Print the secret of a key, of the one that issues unless a serial is given, as the
GlobalSecret in which the global control plane wants it: for "kumactl apply -f -", or
as a Secret for "kubectl apply -f -", or its bytes in base64. Whoever has it can make
tokens for every zone. The audit has who asked for it.`,
		Example: `  zonemint legacy key export control-plane > secret.yaml  # for kumactl apply -f
  zonemint legacy key export control-plane 2 -o kubernetes --namespace kong-mesh-system --out secret.yaml`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			kind, serial, err := legacyKeyArgs(args)
			if err != nil {
				return err
			}
			c, err := conn.open(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			return deliver(cmd, out, func() (string, error) {
				resp, err := c.legacy.ExportLegacyKey(cmd.Context(), &pb.ExportLegacyKeyRequest{Kind: kind, Serial: serial, Reason: reason})
				if err != nil {
					return "", err
				}
				return exported(resp, form.value, namespace)
			})
		},
	}
	useLegacyKind(cmd, completeLegacySerials(&conn))
	f := cmd.Flags()
	f.StringVar(&namespace, "namespace", "kong-mesh-system", "with -o kubernetes: the `name` of the control plane's namespace")
	f.StringVar(&reason, "reason", "", "why, a `text` for the audit")
	f.StringVar(&out, "out", "", "write to this new `file`, which only you can read")
	form = outputFlag(cmd, secretGlobalSecret, secretKubernetes, secretBase64, asJSON)
	connectionFlags(cmd, &conn)
	return cmd
}

// exported writes a secret as a control plane wants it. Names and base64 need no
// escapes. There is no line break at the end.
func exported(resp *pb.ExportLegacyKeyResponse, form, namespace string) (string, error) {
	name, data := resp.GetKey().GetSecretName(), base64.StdEncoding.EncodeToString(resp.GetSecret())
	switch form {
	case asJSON:
		return jsonOf(resp, "")
	case secretBase64:
		return data, nil
	case secretKubernetes:
		return fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata:\n  name: %s\n  namespace: %s\ntype: system.kuma.io/global-secret\ndata:\n  value: %q",
			name, namespace, data), nil
	default:
		return fmt.Sprintf("type: GlobalSecret\nname: %s\ndata: %q", name, data), nil
	}
}
