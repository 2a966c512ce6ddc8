package command

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
)

func newKeyReconcile() *cobra.Command {
	var conn connection
	var backends []string
	var form *choice
	cmd := &cobra.Command{
		Use:   "reconcile",
		Short: "Compare the keys in the backends with those in the database",
		Long: `Compare the keys in the backends with those in the database. It changes nothing.

An unknown key has a label of zonemint, and no row of this database knows it: left
over from a failure, or another installation's. A missing key has a row, and its
backend does not list it. That alone means nothing: the backend may be slow, or
another one than it was.

Exit code 6 means that there are unknown keys, 4 that there are none so far as is
known and a backend could not be read.`,
		Example: `  zonemint key reconcile
  zonemint key reconcile --backend hsm -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := conn.open(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			resp, err := c.keys.ReconcileSigningKeys(cmd.Context(), &pb.ReconcileSigningKeysRequest{Backends: backends})
			if err != nil {
				return err
			}
			if err := show(cmd, form, resp, findingTable(resp)); err != nil {
				return err
			}
			for _, f := range resp.GetFailed() {
				warn(cmd.ErrOrStderr(), "a backend could not be read: %s", printable(f))
			}
			return verdict(resp)
		},
	}
	cmd.Flags().StringSliceVar(&backends, "backend", nil, "the `names` of the backends to look into (default: all)")
	form = outputFlag(cmd, asTable, asJSON)
	connectionFlags(cmd, &conn)
	return cmd
}

func findingTable(resp *pb.ReconcileSigningKeysResponse) table {
	t := table{header: []string{"FINDING", "BACKEND", "KEYSET", "SERIAL", "LABEL OR KID", "REFERENCE", "CREATED"}}
	for _, k := range resp.GetUnknown() {
		serial := ""
		if k.GetSerial() > 0 {
			serial = serialText(k.GetSerial())
		}
		t.add("unknown", k.GetBackend(), k.GetKeyset(), serial, k.GetLabel(), k.GetReference(), moment(k.GetCreatedAt()))
	}
	for _, k := range resp.GetMissing() {
		t.add("missing", k.GetBackend(), k.GetKeyset(), serialText(k.GetSerial()), k.GetKid(), "", moment(k.GetCreatedAt()))
	}
	return t
}

// verdict says how a comparison went, as an error if somebody has to look.
func verdict(resp *pb.ReconcileSigningKeysResponse) error {
	switch n := int64(len(resp.GetUnknown())); {
	case n > 0:
		return coded{fmt.Errorf("the database does not know %s of %d in the backends", count(n, "key"), resp.GetFound()), exitFound}
	case len(resp.GetFailed()) > 0:
		return coded{errors.New("not all backends could be read; the others have no unknown keys"), exitUnavailable}
	default:
		return nil
	}
}
