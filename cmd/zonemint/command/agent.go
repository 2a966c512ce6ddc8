package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/zonemint/zonemint/agent"
	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/service/profile"
	"github.com/zonemint/zonemint/token"
)

func newAgent() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Keep a token fresh where it is used, in a file or a Secret of Kubernetes",
		Long: `Keep a token fresh where it is used, in a file or a Secret of Kubernetes, so that
nobody needs one that is valid for years. A new one is fetched when two thirds of the
old one's life are over, and takes its place as a whole. While the server is away the
old one stays.

Agents need an API token with the role issuer, narrowed to what they fetch. It is
read from its file for each request, so it can be replaced.`,
	}
	cmd.AddCommand(newAgentZone(), newAgentDataplane())
	return cmd
}

// agentHelp is what the help of both kinds of agents says.
const agentHelp = `

A token that is there already is kept if it is for the same and has more than a third
of its life left. SIGHUP fetches a new one at once, SIGINT and SIGTERM end the agent;
the token stays. A token that expires because the server was away for longer than a
third of its life stays too, unless --remove-expired; it is reported, and replaced as
soon as there is a server.

A command after "--" runs when there is a new token, without a shell. Its environment
has ZONEMINT_AGENT_JTI, ZONEMINT_AGENT_EXPIRES_AT and ZONEMINT_AGENT_FILE or
ZONEMINT_AGENT_SECRET. While it fails it is run again, and no other token is fetched.

With --once the command ends when the token is in its place, and fails if that takes
longer than --timeout.`

func newAgentZone() *cobra.Command {
	var k keeping
	var zone string
	var scope *choices
	cmd := &cobra.Command{
		Use:   "zone --zone ZONE --valid-for DURATION {--out FILE | --secret [NAMESPACE/]NAME} [-- COMMAND ARG...]",
		Short: "Keep a zone token fresh",
		Long:  "Keep a zone token fresh: of a zone's control plane, or of its ingresses and egresses." + agentHelp,
		Example: `  # A zone's control plane, which reads the file by itself
  zonemint agent zone --zone east --scope cp --valid-for 24h --out /run/kuma/cp.token

  # Ingress and egress, with a service that has to be told
  zonemint agent zone --zone east --valid-for 24h --out /run/kuma/zone.token -- systemctl restart kuma-ingress

  # An init container, and the sidecar beside the control plane
  zonemint agent zone --zone east --scope cp --valid-for 24h --out /run/token/token --shared-folder --once --timeout 2m
  zonemint agent zone --zone east --scope cp --valid-for 24h --out /run/token/token --shared-folder --metrics-listen :8443

  # A Secret of Kubernetes
  zonemint agent zone --zone east --scope cp --valid-for 24h --secret kuma-system/cp-token`,
		Args: onlyAfterDash,
		RunE: func(cmd *cobra.Command, args []string) error {
			req := &pb.IssueZoneTokenRequest{Zone: zone, Scopes: scope.values, ValidFor: durationpb.New(k.validFor), Keyset: k.keyset}
			issue := func(ctx context.Context, req *pb.IssueZoneTokenRequest) (*pb.IssueZoneTokenResponse, error) {
				c, err := k.conn.open(io.Discard)
				if err != nil {
					return nil, err
				}
				return c.tokens.IssueZoneToken(ctx, req)
			}
			return k.run(cmd, args, profile.Zone{Zone: zone, Scope: scope.values}, agent.Zone(issue, req))
		},
	}
	cmd.Flags().StringVar(&zone, "zone", "", "the `name` of the zone")
	scope = choicesFlag(cmd, "scope", token.DefaultScopes(), scopes(), "what the token may be used for")
	k.flags(cmd, "zone")
	_ = cmd.MarkFlagRequired("zone") // the flag exists
	return cmd
}

func newAgentDataplane() *cobra.Command {
	var k keeping
	var d dataplane
	cmd := &cobra.Command{
		Use:   "dataplane --name NAME --valid-for DURATION {--out FILE | --secret [NAMESPACE/]NAME} [-- COMMAND ARG...]",
		Short: "Keep a dataplane token fresh",
		Long: `Keep a dataplane token fresh: for one dataplane by its name, or for those of a mesh
that have certain tags or belong to a workload.` + agentHelp,
		Example: `  zonemint agent dataplane --mesh default --name web-1 --valid-for 24h --out /run/kuma/web-1.token --owner kuma-dp
  zonemint agent dataplane --mesh shop --workload checkout --valid-for 12h --out /run/kuma/checkout.token
  zonemint agent dataplane --tag kuma.io/service=web --valid-for 24h --secret mesh/web-token --secret-key dataplaneToken`,
		Args: onlyAfterDash,
		RunE: func(cmd *cobra.Command, args []string) error {
			issue := func(ctx context.Context, req *pb.IssueDataplaneTokenRequest) (*pb.IssueDataplaneTokenResponse, error) {
				c, err := k.conn.open(io.Discard)
				if err != nil {
					return nil, err
				}
				return c.tokens.IssueDataplaneToken(ctx, req)
			}
			req := d.request(&minting{validFor: k.validFor, keyset: k.keyset})
			return k.run(cmd, args, d.wish(), agent.Dataplane(issue, req))
		},
	}
	d.flags(cmd)
	k.flags(cmd, "the one of the mesh")
	return cmd
}

// onlyAfterDash refuses arguments that are not a command after "--".
func onlyAfterDash(cmd *cobra.Command, args []string) error {
	if len(args) > 0 && cmd.ArgsLenAtDash() != 0 {
		return fmt.Errorf("unexpected argument %q; a command to run goes after \"--\"", args[0])
	}
	return nil
}

// keeping is what the flags of all agents say.
type keeping struct {
	conn     connection
	validFor time.Duration
	keyset   string

	place         place
	after         after
	once          bool
	removeExpired bool
	metricsListen string
	logFormat     *choice
	form          *choice
}

// flags adds the flags, with the keyset that is used without --keyset.
func (k *keeping) flags(cmd *cobra.Command, keyset string) {
	f := cmd.Flags()
	f.DurationVar(&k.validFor, "valid-for", 0, "how long each token is valid, for example 24h")
	keysetFlag(cmd, &k.conn, &k.keyset, "the `name` of the keyset whose key signs (default: "+keyset+")")
	k.place.flags(cmd)
	k.after.flags(cmd)
	f.BoolVar(&k.once, "once", false, "put a token in its place and end")
	f.BoolVar(&k.removeExpired, "remove-expired", false, "remove the token if it expires before there is another")
	f.StringVar(&k.metricsListen, "metrics-listen", "", "the `host:port` to serve health and metrics at (default: nowhere)")
	k.logFormat = choiceFlag(cmd, "log-format", "", "text", []string{"text", "json"}, "how to log")
	k.form = outputFlag(cmd, asTable, asJSON)
	connectionFlags(cmd, &k.conn)
	_ = cmd.MarkFlagRequired("valid-for") // the flag exists
	cmd.MarkFlagsMutuallyExclusive("once", "metrics-listen")
}

// leastLife is the shortest lifetime for which renewing makes sense.
const leastLife = 5 * time.Second

// check refuses what no server would accept, and what makes no sense here.
func (k *keeping) check(cmd *cobra.Command, wish profile.Wish, command []string) error {
	var errs []error
	for _, f := range wish.Faults() {
		errs = append(errs, fmt.Errorf("--%s: %s", flagOf(f.Field), f.Reason))
	}
	if k.validFor < leastLife {
		errs = append(errs, fmt.Errorf("--valid-for: %s is shorter than %s, which leaves no time for renewing", k.validFor, leastLife))
	}
	if cmd.Flags().Changed("output") && !k.once {
		errs = append(errs, errors.New("--output is for --once; without it, see --metrics-listen"))
	}
	return errors.Join(append(errs, k.place.check(), k.after.check(command))...)
}
