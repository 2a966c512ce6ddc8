package command

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
)

// revoking is what the flags of "revocation add" say.
type revoking struct {
	conn           connection
	keyset, reason string
	form           *choice

	// One token or a few.
	jwtFile   string
	expiresAt *instant

	// All that match.
	zone, caller              string
	serial                    int32
	issuedAfter, issuedBefore *instant
	all, dryRun, sure         bool
	expect                    int64
}

func newRevocationAdd() *cobra.Command {
	var r revoking
	cmd := &cobra.Command{
		Use:   "add [JTI...]",
		Short: "Revoke tokens: by ID, by the token itself, or all that match a filter",
		Long: `Revoke tokens by their IDs, by the token itself (--jwt-file; never on the command
line, where others on the machine could read it), or all live tokens of the ledger
that match a filter. Keyset and expiry of an ID come from the ledger; give --keyset
and --expires-at for one that is not in it.

Flags of a filter are ands; --keyset --all means all tokens of the keyset. On a
terminal you are told how many match, and asked; elsewhere a filter needs --expect,
--dry-run or --yes. With --expect nothing is revoked unless it is that many;
--dry-run counts only.`,
		Example: `  zonemint revocation add 0198f1c4-6c1e-7a51-9d55-4f0ad6f21b7e --reason 'laptop lost'
  zonemint revocation add --jwt-file leaked.token
  zonemint revocation add --zone west --issued-after 2h --dry-run
  zonemint revocation add --caller api-token/0198f1c4-6c1e-7a51-9d55-4f0ad6f21b7e --expect 12 --reason 'incident 42'`,
		RunE: func(cmd *cobra.Command, args []string) error { return r.run(cmd, args) },
	}
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	keysetFlag(cmd, &r.conn, &r.keyset, "the `name` of the keyset")
	f := cmd.Flags()
	f.StringVar(&r.jwtFile, "jwt-file", "", "revoke the token in this `file`, - is stdin")
	r.expiresAt = futureFlag(cmd, "expires-at", "when a token that is not in the ledger expires, a `time` or a duration from now")
	f.StringVar(&r.zone, "zone", "", "filter: the `name` of the zone, dataplane or user that tokens are for")
	f.Int32Var(&r.serial, "serial", 0, "filter: the `serial` of the key that signed, with --keyset")
	f.StringVar(&r.caller, "caller", "", "filter: `who` asked for them, as \"zonemint ledger list\" shows it")
	r.issuedAfter = pastFlag(cmd, "issued-after", "filter: issued at this `time` or later; a duration is that long ago")
	r.issuedBefore = pastFlag(cmd, "issued-before", "filter: issued before this `time`; a duration is that long ago")
	f.BoolVar(&r.all, "all", false, "filter: all tokens of the keyset, with --keyset")
	f.BoolVar(&r.dryRun, "dry-run", false, "filter: only count")
	f.Int64Var(&r.expect, "expect", 0, "filter: revoke nothing unless this `many` match")
	f.BoolVar(&r.sure, "yes", false, "filter: do not ask")
	f.StringVar(&r.reason, "reason", "", "why, a `text` for people and the audit")
	_ = cmd.RegisterFlagCompletionFunc("serial", completeSerials(&r.conn, &r.keyset)) // the flag exists
	r.form = outputFlag(cmd, asTable, asJSON)
	connectionFlags(cmd, &r.conn)
	cmd.MarkFlagsMutuallyExclusive("dry-run", "expect")
	return cmd
}

func (r revoking) run(cmd *cobra.Command, args []string) error {
	byFilter, err := r.byFilter(cmd, args)
	if err == nil && byFilter {
		err = r.checkFilter(cmd)
	}
	if err != nil {
		return usage{err}
	}
	c, err := r.conn.open(cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	if byFilter {
		return r.matching(cmd, c)
	}
	return r.named(cmd, c, args)
}

// byFilter tells the two forms of the command apart and refuses to mix them.
func (r revoking) byFilter(cmd *cobra.Command, args []string) (bool, error) {
	filters := given(cmd, append(filterFlags(), "all", "dry-run", "expect", "yes"))
	named := len(args) > 0 || r.jwtFile != ""
	switch err := refuseTokens(args); {
	case err != nil:
		return false, err
	case len(args) > 0 && r.jwtFile != "":
		return false, errors.New("give either token IDs or --jwt-file")
	case named && len(filters) > 0:
		return false, fmt.Errorf("%s belong to a filter: give either single tokens or a filter", strings.Join(filters, ", "))
	case !named && len(filters) == 0 && r.keyset == "":
		return false, errors.New("say what to revoke: token IDs, --jwt-file, or a filter such as --zone")
	case !named && r.expiresAt.text != "":
		return false, errors.New("--expires-at goes with the ID of a token that is not in the ledger")
	}
	return !named, nil
}

// filterFlags are the flags that make the tokens fewer which a filter matches.
func filterFlags() []string {
	return []string{"zone", "serial", "caller", "issued-after", "issued-before"}
}

// given returns those of the flags that are on the command line.
func given(cmd *cobra.Command, names []string) []string {
	var list []string
	for _, name := range names {
		if cmd.Flags().Changed(name) {
			list = append(list, "--"+name)
		}
	}
	return list
}

// checkFilter refuses filters that may have come about by accident, such as by a
// shell variable that is empty.
func (r revoking) checkFilter(cmd *cobra.Command) error {
	for _, name := range filterFlags() {
		if f := cmd.Flags().Lookup(name); f.Changed && f.Value.String() == "" {
			return fmt.Errorf("--%s is empty", name)
		}
	}
	narrow := given(cmd, filterFlags())
	switch {
	case cmd.Flags().Changed("serial") && r.serial < 1:
		return errors.New("--serial is a number from 1 on")
	case r.serial != 0 && r.keyset == "":
		return errors.New("--serial needs --keyset: every keyset counts its own")
	case r.all && r.keyset == "":
		return errors.New("--all needs --keyset: it means all tokens of one keyset")
	case r.all && len(narrow) > 0:
		return fmt.Errorf("--all means all tokens of the keyset: leave out %s, or --all", strings.Join(narrow, ", "))
	case !r.all && len(narrow) == 0:
		return errors.New("say which tokens are meant: token IDs, --jwt-file, a filter such as --zone, or --all for all tokens of --keyset")
	case !r.dryRun && !r.sure && !cmd.Flags().Changed("expect") && !isTerminal(cmd.InOrStdin()):
		return errors.New("there is no terminal to ask on: add --expect with how many tokens you mean, --yes, or --dry-run to count them")
	}
	return nil
}

// refuseTokens refuses tokens where their IDs belong.
func refuseTokens(args []string) error {
	for _, a := range args {
		if strings.Count(a, ".") == 2 && strings.HasPrefix(a, "ey") {
			return errors.New("this is a token, not its ID: others on the machine can read command lines, so give it to --jwt-file, - is stdin")
		}
	}
	return nil
}

// named revokes single tokens. One that fails does not keep the others.
func (r revoking) named(cmd *cobra.Command, c *client, jtis []string) error {
	var reqs []*pb.RevokeTokenRequest
	for _, jti := range jtis {
		reqs = append(reqs, &pb.RevokeTokenRequest{Jti: jti})
	}
	if r.jwtFile != "" {
		text, err := readToken(cmd, []string{r.jwtFile})
		if err != nil {
			return usage{err}
		}
		reqs = []*pb.RevokeTokenRequest{{Token: text}}
	}
	t := table{header: []string{"JTI", "KEYSET", "STATE", "REVOKED", "EXPIRES"}}
	var errs []error
	for _, req := range reqs {
		req.Keyset, req.ExpiresAt, req.Reason = r.keyset, r.expiresAt.proto(), r.reason
		resp, err := c.revocations.RevokeToken(cmd.Context(), req)
		switch {
		case err != nil:
			errs = append(errs, r.about(req, err))
		case r.form.value == asJSON:
			errs = append(errs, showJSON(cmd, resp))
		default:
			t.add(revocationRow(resp)...)
		}
	}
	if r.form.value != asJSON && len(t.rows) > 0 {
		errs = append(errs, t.print(cmd.OutOrStdout()))
	}
	return errors.Join(errs...)
}

// about says which of several tokens an error is about.
func (r revoking) about(req *pb.RevokeTokenRequest, err error) error {
	if req.GetJti() == "" {
		return err
	}
	return fmt.Errorf("%s: %w", req.GetJti(), err)
}

func revocationRow(resp *pb.RevokeTokenResponse) []string {
	rev, state := resp.GetRevocation(), "revoked"
	if resp.GetExpired() {
		state = "had expired"
	}
	return []string{rev.GetJti(), rev.GetKeyset(), state, moment(rev.GetRevokedAt()), moment(rev.GetExpiresAt())}
}

// matching revokes all tokens that match the filter.
func (r revoking) matching(cmd *cobra.Command, c *client) error {
	req := &pb.RevokeTokensRequest{
		Filter: &pb.RevocationFilter{
			Zone: r.zone, Keyset: r.keyset, Serial: r.serial, Caller: r.caller,
			IssuedAfter: r.issuedAfter.proto(), IssuedBefore: r.issuedBefore.proto(),
		},
		DryRun: r.dryRun, Reason: r.reason,
	}
	if cmd.Flags().Changed("expect") {
		req.ExpectedCount = &r.expect
	}
	if !r.dryRun && req.ExpectedCount == nil && !r.sure && isTerminal(cmd.InOrStdin()) {
		if err := r.ask(cmd, c, req); err != nil {
			return err
		}
	}
	resp, err := c.revocations.RevokeTokens(cmd.Context(), req)
	if err != nil {
		return err
	}
	t := table{}
	t.add("matched", strconv.FormatInt(resp.GetMatched(), 10))
	if !r.dryRun {
		t.add("newly revoked", strconv.FormatInt(resp.GetRevoked(), 10))
	}
	return show(cmd, r.form, resp, t)
}

// ask tells a person how many tokens match. What is issued between the answer and
// the act is revoked too: whoever revokes by a filter means the filter.
func (r revoking) ask(cmd *cobra.Command, c *client, req *pb.RevokeTokensRequest) error {
	counted, err := c.revocations.RevokeTokens(cmd.Context(), &pb.RevokeTokensRequest{Filter: req.GetFilter(), DryRun: true})
	if err != nil {
		return err
	}
	if counted.GetMatched() == 0 {
		return nil
	}
	question := fmt.Sprintf("This revokes %s.", count(counted.GetMatched(), "live token"))
	return confirm(cmd, question, "yes")
}
