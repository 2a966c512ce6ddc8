package command

import (
	"context"
	"fmt"
	"strconv"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
)

func newRevocation() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "revocation",
		Short: "Revoke tokens before they expire, and read what is revoked",
		Long: `Revoke tokens before they expire, and read what is revoked. A token is named by its
ID, the claim jti, which "zonemint verify" and "zonemint ledger list" show. Verifiers
learn of it from the feed of the keyset.`,
	}
	cmd.AddCommand(newRevocationAdd(), newRevocationList(), newRevocationShow(), newRevocationLift(),
		newRevocationExport(), newRevocationWatch())
	return cmd
}

func newRevocationList() *cobra.Command {
	var conn connection
	var keyset string
	var form *choice
	cmd := &cobra.Command{
		Use:   "list --keyset NAME",
		Short: "List revocations of tokens that would still be valid, oldest first",
		Example: `  zonemint revocation list --keyset zone
  zonemint revocation list --keyset zone -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := conn.open(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			return listing[*pb.Revocation]{
				field: "revocations", header: []string{"SEQ", "JTI", "REVOKED", "EXPIRES", "BY", "REASON"},
				row: func(r *pb.Revocation) []string {
					return []string{
						strconv.FormatInt(r.GetSeq(), 10), r.GetJti(), moment(r.GetRevokedAt()), moment(r.GetExpiresAt()),
						r.GetCaller(), r.GetReason(),
					}
				},
				page: func(ctx context.Context, size int32, token string) ([]*pb.Revocation, string, error) {
					resp, err := c.revocations.ListRevocations(ctx, &pb.ListRevocationsRequest{Keyset: keyset, PageSize: size, PageToken: token})
					return resp.GetRevocations(), resp.GetNextPageToken(), err
				},
			}.show(cmd, form)
		},
	}
	requiredKeyset(cmd, &conn, &keyset)
	form = outputFlag(cmd, asTable, asJSON)
	connectionFlags(cmd, &conn)
	return cmd
}

// requiredKeyset adds --keyset to commands that cannot do without.
func requiredKeyset(cmd *cobra.Command, conn *connection, keyset *string) {
	keysetFlag(cmd, conn, keyset, "the `name` of the keyset")
	_ = cmd.MarkFlagRequired("keyset") // the flag exists
}

func newRevocationShow() *cobra.Command {
	var conn connection
	var keyset string
	var form *choice
	cmd := &cobra.Command{
		Use:     "show JTI --keyset NAME",
		Short:   "Show the revocation of a token: when, by whom and why",
		Example: `  zonemint revocation show 0198f1c4-6c1e-7a51-9d55-4f0ad6f21b7e --keyset zone`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := refuseTokens(args); err != nil {
				return usage{err}
			}
			c, err := conn.open(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			resp, err := c.revocations.GetRevocation(cmd.Context(), &pb.GetRevocationRequest{Keyset: keyset, Jti: args[0]})
			if err != nil {
				return unrevoked(keyset, err)
			}
			return show(cmd, form, resp, revocationDetails(resp.GetRevocation()))
		},
	}
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	requiredKeyset(cmd, &conn, &keyset)
	form = outputFlag(cmd, asTable, asJSON)
	connectionFlags(cmd, &conn)
	return cmd
}

func newRevocationLift() *cobra.Command {
	var conn connection
	var keyset, reason string
	var form *choice
	cmd := &cobra.Command{
		Use:   "lift JTI --keyset NAME --reason TEXT",
		Short: "Take a revocation back, so that the token is good again",
		Long: `Take a revocation back, so that the token is good again until it expires. Only
administrators may. Verifiers learn of it from the feed.`,
		Example: `  zonemint revocation lift 0198f1c4-6c1e-7a51-9d55-4f0ad6f21b7e --keyset zone --reason 'wrong token'`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := refuseTokens(args); err != nil {
				return usage{err}
			}
			c, err := conn.open(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			resp, err := c.revocations.LiftRevocation(cmd.Context(), &pb.LiftRevocationRequest{Keyset: keyset, Jti: args[0], Reason: reason})
			if err != nil {
				return unrevoked(keyset, err)
			}
			return show(cmd, form, resp, revocationDetails(resp.GetRevocation()))
		},
	}
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	requiredKeyset(cmd, &conn, &keyset)
	cmd.Flags().StringVar(&reason, "reason", "", "why, a `text` for the audit")
	_ = cmd.MarkFlagRequired("reason") // the flag exists
	form = outputFlag(cmd, asTable, asJSON)
	connectionFlags(cmd, &conn)
	return cmd
}

// unrevoked says which revocation a call did not find.
func unrevoked(keyset string, err error) error {
	if connect.CodeOf(err) != connect.CodeNotFound {
		return err
	}
	return fmt.Errorf("keyset %q has no revocation of this token ID (%w)", keyset, err)
}

func revocationDetails(r *pb.Revocation) table {
	t := table{}
	t.add("keyset", r.GetKeyset())
	t.add("jti", r.GetJti())
	if r.GetLiftedAt() != nil {
		t.add("lifted", moment(r.GetLiftedAt()))
	}
	t.add("revoked", moment(r.GetRevokedAt()))
	t.add("by", r.GetCaller())
	t.add("reason", r.GetReason())
	t.add("token expires", moment(r.GetExpiresAt()))
	t.add("position in the feed", strconv.FormatInt(r.GetSeq(), 10))
	return t
}
