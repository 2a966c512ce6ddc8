package command

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
)

func newAPIToken() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "api-token",
		Short: "Manage API tokens, by which callers of this service prove who they are",
	}
	cmd.AddCommand(newAPITokenCreate(), newAPITokenList(), newAPITokenRevoke())
	return cmd
}

// apiTokenFlags is what the flags of "api-token create" say.
type apiTokenFlags struct {
	conn                   connection
	name, out              string
	roles, scopes          *choices
	keysets, zones         []string
	dataplanes             []string
	maxValidFor, expiresIn time.Duration
	form                   *choice
}

func newAPITokenCreate() *cobra.Command {
	var a apiTokenFlags
	cmd := &cobra.Command{
		Use:   "create --name NAME --role ROLE",
		Short: "Make an API token and print it, or write it to a file",
		Long: `Make an API token. What it may do is the sum of its roles, narrowed to keysets,
zones, scopes and a lifetime, or to dataplanes; what is not narrowed is all. Nobody can give away
more than they have. The token is shown once, with nothing around it, and with a
newline only on a terminal.

Roles: admin, everything; issuer, issue and verify tokens; key-operator, manage
keysets and keys; revoker, revoke tokens; verifier, read revocations and
acknowledge keys; auditor, read everything and change nothing.`,
		Example: `  zonemint api-token create --name ci-west --role issuer --zone 'west-*' --max-valid-for 24h --out ci-west.token
  zonemint api-token create --name web-1 --role issuer --keyset dataplane/default --dataplane web-1 --out web-1.api-token
  zonemint api-token create --name prometheus --role auditor --expires-in 8760h`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.create(cmd) },
	}
	f := cmd.Flags()
	f.StringVar(&a.name, "name", "", "a `name` for people and for the audit")
	a.roles = choicesFlag(cmd, "role", nil, roles(), "what it may do")
	f.StringSliceVar(&a.keysets, "keyset", nil, "narrow it to keysets with these `names`")
	_ = cmd.RegisterFlagCompletionFunc("keyset", completeKeysets(&a.conn)) // the flag exists
	f.StringSliceVar(&a.zones, "zone", nil, "narrow it to these `zones`; a name may end in '*'")
	a.scopes = choicesFlag(cmd, "scope", nil, scopes(), "narrow it to these scopes")
	f.StringSliceVar(&a.dataplanes, "dataplane", nil, "narrow it to tokens of these `dataplanes`; a name may end in '*'")
	cmd.MarkFlagsMutuallyExclusive("dataplane", "zone")
	cmd.MarkFlagsMutuallyExclusive("dataplane", "scope")
	f.DurationVar(&a.maxValidFor, "max-valid-for", 0, "the longest lifetime of a token it may ask for (default: the keyset's)")
	f.DurationVar(&a.expiresIn, "expires-in", 0, "how long the API token itself is valid (default: 2160h, 90 days)")
	f.StringVar(&a.out, "out", "", "write the token to this new `file`, readable by you alone, instead of printing it")
	a.form = outputFlag(cmd, asToken, asJSON)
	connectionFlags(cmd, &a.conn)
	_, _ = cmd.MarkFlagRequired("name"), cmd.MarkFlagRequired("role") // the flags exist
	return cmd
}

func (a apiTokenFlags) create(cmd *cobra.Command) error {
	if a.form.value == asJSON && a.out != "" {
		return usage{errors.New("--out takes the token alone; leave out -o json, or redirect it")}
	}
	c, err := a.conn.open(cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	made := func() (*pb.CreateApiTokenResponse, error) {
		return c.callers.CreateApiToken(cmd.Context(), &pb.CreateApiTokenRequest{
			Name: a.name, Roles: a.roles.values, Keysets: a.keysets, Zones: a.zones, Scopes: a.scopes.values,
			Dataplanes:  a.dataplanes,
			MaxValidFor: optional(cmd, "max-valid-for", a.maxValidFor), ExpiresIn: optional(cmd, "expires-in", a.expiresIn),
		})
	}
	if a.form.value == asJSON {
		resp, err := made()
		if err != nil {
			return err
		}
		return showJSON(cmd, resp)
	}
	return deliver(cmd, a.out, func() (string, error) {
		resp, err := made()
		if err == nil {
			t := resp.GetApiToken()
			say(cmd.ErrOrStderr(), "API token %s, role %s, expires %s. It cannot be shown again.",
				t.GetId(), list(t.GetRoles()), moment(t.GetExpiresAt()))
		}
		return resp.GetToken(), err
	})
}

func newAPITokenList() *cobra.Command {
	var conn connection
	var form *choice
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List API tokens, newest first, revoked and expired ones too",
		Example: `  zonemint api-token list`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := conn.open(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			all, err := listAPITokens(cmd.Context(), c)
			if err != nil {
				return err
			}
			return show(cmd, form, all, apiTokenTable(all.GetApiTokens(), time.Now()))
		},
	}
	form = outputFlag(cmd, asTable, asJSON)
	connectionFlags(cmd, &conn)
	return cmd
}

// listAPITokens puts all pages together.
func listAPITokens(ctx context.Context, c *client) (*pb.ListApiTokensResponse, error) {
	all, page := &pb.ListApiTokensResponse{}, ""
	for {
		resp, err := c.callers.ListApiTokens(ctx, &pb.ListApiTokensRequest{PageSize: 1000, PageToken: page})
		if err != nil {
			return nil, err
		}
		all.ApiTokens = append(all.ApiTokens, resp.GetApiTokens()...)
		if page = resp.GetNextPageToken(); page == "" {
			return all, nil
		}
	}
}

func newAPITokenRevoke() *cobra.Command {
	var conn connection
	var form *choice
	cmd := &cobra.Command{
		Use:   "revoke ID",
		Short: "Make an API token useless, at once and on every replica",
		Long: `Make an API token useless, at once and on every replica. "zonemint api-token list"
shows IDs. Tokens that were issued with it go on being valid.`,
		Example: `  zonemint api-token revoke 0198f1c4-6c1e-7a51-9d55-4f0ad6f21b7e`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := conn.open(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			resp, err := c.callers.RevokeApiToken(cmd.Context(), &pb.RevokeApiTokenRequest{Id: args[0]})
			if err != nil {
				return err
			}
			return show(cmd, form, resp, apiTokenTable([]*pb.ApiToken{resp.GetApiToken()}, time.Now()))
		},
	}
	form = outputFlag(cmd, asTable, asJSON)
	connectionFlags(cmd, &conn)
	return cmd
}

func apiTokenTable(tokens []*pb.ApiToken, now time.Time) table {
	t := table{header: []string{"ID", "NAME", "STATE", "ROLES", "KEYSETS", "ZONES", "SCOPES", "DATAPLANES", "MAX", "EXPIRES", "CREATED BY"}}
	for _, a := range tokens {
		state := "good"
		switch {
		case a.GetRevokedAt() != nil:
			state = "revoked"
		case !now.Before(a.GetExpiresAt().AsTime()):
			state = "expired"
		}
		zones, scopes, dataplanes := reach(a)
		t.add(a.GetId(), a.GetName(), state, list(a.GetRoles()), listOrAll(a.GetKeysets()), zones, scopes, dataplanes,
			span(a.GetMaxValidFor()), moment(a.GetExpiresAt()), a.GetCreatedBy())
	}
	return t
}

// reach says for whom an API token may issue. Narrowing it to tokens of one kind
// takes those of the others from it.
func reach(a *pb.ApiToken) (zones, scopes, dataplanes string) {
	const none = "none"
	switch {
	case len(a.GetDataplanes()) != 0:
		return none, none, list(a.GetDataplanes())
	case len(a.GetZones()) != 0 || len(a.GetScopes()) != 0:
		return listOrAll(a.GetZones()), listOrAll(a.GetScopes()), none
	default:
		return listOrAll(nil), listOrAll(nil), listOrAll(nil)
	}
}
