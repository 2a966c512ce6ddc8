package command

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"

	"github.com/spf13/cobra"
)

func newRevocationExport() *cobra.Command {
	var conn connection
	var keyset string
	var format *choice
	cmd := &cobra.Command{
		Use:   "export --keyset NAME",
		Short: "Print the revocation feed of a keyset, as verifiers and Kuma read it",
		Long: `Print the revocation feed of a keyset as the server serves it at
/keysets/NAME/revocations: for Kuma the IDs of tokens separated by commas, as its
secrets "zone-token-revocations" and the like have them; or JSON, one document for
every page of the feed. It is printed all or not at all, with nothing around it.`,
		Example: `  zonemint revocation export --keyset zone > revocations.txt
  zonemint revocation export --keyset zone --format json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := conn.open(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			export := kumaFeed
			if format.value == asJSON {
				export = jsonFeed
			}
			feed, err := export(cmd.Context(), c, keyset)
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(feed)
			return err
		},
	}
	requiredKeyset(cmd, &conn, &keyset)
	format = choiceFlag(cmd, "format", "", "kuma", []string{"kuma", asJSON}, "how to print it")
	connectionFlags(cmd, &conn)
	return cmd
}

// kumaFeed returns the IDs of revoked tokens, separated by commas.
func kumaFeed(ctx context.Context, c *client, keyset string) ([]byte, error) {
	return c.web.get(ctx, keysetPath(keyset, "/revocations"), "text/plain")
}

// feedPosition is what of a page says where the next one begins.
type feedPosition struct {
	Epoch string      `json:"epoch"`
	Seq   json.Number `json:"seq"`
	More  bool        `json:"more"`
}

// jsonFeed returns the pages of a feed, each as the server has sent it.
func jsonFeed(ctx context.Context, c *client, keyset string) ([]byte, error) {
	path, all := keysetPath(keyset, "/revocations"), bytes.Buffer{}
	for at := (feedPosition{More: true}); at.More; {
		from := path
		if at.Epoch != "" {
			from += "?" + url.Values{"epoch": {at.Epoch}, "since": {at.Seq.String()}}.Encode()
		}
		page, err := c.web.get(ctx, from, "application/json")
		if err != nil {
			return nil, err
		}
		var next feedPosition
		if err := json.Unmarshal(page, &next); err != nil {
			return nil, fmt.Errorf("the revocation feed of %s is not what this command knows: %w", keyset, err)
		}
		if next.More && next.Epoch == at.Epoch && next.Seq == at.Seq {
			return nil, errors.New("the revocation feed of " + keyset + " does not get on; try again")
		}
		at = next
		all.Write(bytes.TrimSpace(page))
		all.WriteByte('\n')
	}
	return all.Bytes(), nil
}
