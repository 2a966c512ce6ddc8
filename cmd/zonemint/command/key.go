package command

import (
	"context"
	"strconv"

	"github.com/spf13/cobra"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
)

func newKey() *cobra.Command {
	cmd := &cobra.Command{Use: "key", Short: "Look at signing keys"}
	cmd.AddCommand(newKeyList())
	return cmd
}

func newKeyList() *cobra.Command {
	var conn connection
	var keyset string
	var form *choice
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List signing keys and their states",
		Long: `List the signing keys of one keyset, or of all that you may see. JSON has the
public keys too.`,
		Example: `  zonemint key list
  zonemint key list --keyset zone -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := conn.open(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			resp, err := listKeys(cmd.Context(), c, keyset)
			if err != nil {
				return err
			}
			return show(cmd, form, resp, keyTable(resp.GetSigningKeys()))
		},
	}
	keysetFlag(cmd, &conn, &keyset, "the `name` of the keyset (default: all)")
	form = outputFlag(cmd, asTable, asJSON)
	connectionFlags(cmd, &conn)
	return cmd
}

func listKeys(ctx context.Context, c *client, keyset string) (*pb.ListSigningKeysResponse, error) {
	if keyset != "" {
		return c.keys.ListSigningKeys(ctx, &pb.ListSigningKeysRequest{Keyset: keyset})
	}
	keysets, err := c.keys.ListKeysets(ctx, &pb.ListKeysetsRequest{})
	if err != nil {
		return nil, err
	}
	all := &pb.ListSigningKeysResponse{}
	for _, k := range keysets.GetKeysets() {
		resp, err := c.keys.ListSigningKeys(ctx, &pb.ListSigningKeysRequest{Keyset: k.GetName()})
		if err != nil {
			return nil, err
		}
		all.SigningKeys = append(all.SigningKeys, resp.GetSigningKeys()...)
	}
	return all, nil
}

func keyTable(keys []*pb.SigningKey) table {
	t := table{header: []string{"KEYSET", "SERIAL", "STATE", "KID", "ALGORITHM", "BACKEND", "ROLE", "ACTIVE SINCE", "LAST EXPIRY"}}
	for _, k := range keys {
		t.add(k.GetKeyset(), strconv.Itoa(int(k.GetSerial())), k.GetState(), k.GetKid(), k.GetAlgorithm(), k.GetBackend(),
			k.GetRole(), moment(k.GetActivatedAt()), moment(k.GetLastExpiry()))
	}
	return t
}
