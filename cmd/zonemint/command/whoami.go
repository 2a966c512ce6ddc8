package command

import (
	"strings"

	"github.com/spf13/cobra"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
)

func newWhoAmI() *cobra.Command {
	var conn connection
	var form *choice
	cmd := &cobra.Command{
		Use:     "whoami",
		Short:   "Say whom the server takes you for and what you may do",
		Example: `  zonemint whoami`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := conn.open(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			resp, err := c.callers.WhoAmI(cmd.Context(), &pb.WhoAmIRequest{})
			if err != nil {
				return err
			}
			return show(cmd, form, resp, whoAmITable(resp))
		},
	}
	form = outputFlag(cmd, asTable, asJSON)
	connectionFlags(cmd, &conn)
	return cmd
}

func whoAmITable(resp *pb.WhoAmIResponse) table {
	a, t := resp.GetApiToken(), table{}
	t.add("caller", resp.GetCaller())
	t.add("name", a.GetName())
	t.add("roles", list(a.GetRoles()))
	t.add("keysets", listOrAll(a.GetKeysets()))
	zones, scopes, dataplanes := reach(a)
	t.add("zones", zones)
	t.add("scopes", scopes)
	t.add("dataplanes", dataplanes)
	t.add("longest token", span(a.GetMaxValidFor()))
	t.add("expires", moment(a.GetExpiresAt()))
	for _, m := range resp.GetMethods() {
		t.add("may call", strings.TrimPrefix(m, "zonemint.v1."))
	}
	return t
}
