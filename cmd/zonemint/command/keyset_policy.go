package command

import (
	"errors"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
)

// policy is what the flags say that "keyset create" and "keyset update" share.
type policy struct {
	conn                                   connection
	algorithm, distribution, form          *choice
	backend                                string
	maxValidFor, defaultValidFor, backdate time.Duration
	rotateEvery, publishAhead              time.Duration
	consumers                              []string
	allowMeshSystem                        bool
	standby                                string
	allowWeakerStandby                     bool
}

// flags adds the flags. What a keyset has without them is for create alone to
// say: update leaves it as it is.
func (p *policy) flags(cmd *cobra.Command, without func(text string) string) {
	f := cmd.Flags()
	p.algorithm = algorithmFlag(cmd, "the `algorithm` of its new keys, such as RS256-4096 or ES256"+without("RS256, which Kuma verifies"))
	p.distribution = choiceFlag(cmd, "distribution", "", "", distributions(), "how verifiers learn its keys"+without("jwks"))
	f.StringVar(&p.backend, "backend", "", "the `name` of the backend that holds its new keys"+without("the server's"))
	f.DurationVar(&p.maxValidFor, "max-valid-for", 0, "the longest lifetime of a token"+without("720h"))
	f.DurationVar(&p.defaultValidFor, "default-valid-for", 0, "the lifetime of a token whose request says none; 0: it must say one"+without("0"))
	f.DurationVar(&p.backdate, "backdate", 0, "how far iat and nbf lie in the past, for clocks that are behind"+without("5s"))
	f.DurationVar(&p.rotateEvery, "rotate-every", 0, "how long a key signs before its successor takes over; 0: until somebody asks"+without("0"))
	f.DurationVar(&p.publishAhead, "publish-ahead", 0, "how long a successor is published at least, on top of what caches need"+without("0"))
	f.StringSliceVar(&p.consumers, "consumer", nil, "the `names` of those who must acknowledge a key before it signs"+without("nobody"))
	f.BoolVar(&p.allowMeshSystem, "allow-mesh-system", false, `user tokens may have names and groups that begin with "mesh-system:", the rights of administrators`)
	f.StringVar(&p.standby, "standby", "", "the `name` of the backend whose keys sign while the other one cannot"+without("none"))
	f.BoolVar(&p.allowWeakerStandby, "allow-weaker-standby", false, "the standby may keep its private keys less safely than the backend does")
	p.form = outputFlag(cmd, asTable, asJSON)
	connectionFlags(cmd, &p.conn)
}

// keyset returns what was given, and nothing for what was not.
func (p *policy) keyset(cmd *cobra.Command, name string) *pb.Keyset {
	way := strings.ToUpper(strings.ReplaceAll(p.distribution.value, "-", "_"))
	return &pb.Keyset{
		Name: name, Algorithm: p.algorithm.value, Backend: p.backend, Consumers: p.consumers,
		Distribution:    pb.Distribution(pb.Distribution_value["DISTRIBUTION_"+way]), // none is the zero, unspecified
		MaxValidFor:     optional(cmd, "max-valid-for", p.maxValidFor),
		DefaultValidFor: optional(cmd, "default-valid-for", p.defaultValidFor),
		Backdate:        optional(cmd, "backdate", p.backdate),
		RotateEvery:     optional(cmd, "rotate-every", p.rotateEvery),
		PublishAhead:    optional(cmd, "publish-ahead", p.publishAhead),
		AllowMeshSystem: p.allowMeshSystem, Standby: p.standby, AllowWeakerStandby: p.allowWeakerStandby,
	}
}

func newKeysetCreate() *cobra.Command {
	var p policy
	var profile *choice
	var mesh string
	cmd := &cobra.Command{
		Use:   "create NAME --profile PROFILE",
		Short: "Make a keyset, with a key that signs and its published successor",
		Long: `Make a keyset. Its name is one or two labels separated by a slash and does not
change: "zone", "dataplane/default". It gets two keys, one that signs and one that
is published and ready to follow it.

A keyset for dataplane tokens is for one mesh, the one after the slash in its name
unless --mesh says otherwise.`,
		Example: `  zonemint keyset create edge --profile zone --max-valid-for 24h --rotate-every 720h
  zonemint keyset create dataplane/payments --profile dataplane --algorithm RS256-4096
  zonemint keyset create legacy --profile zone --distribution manual --consumer cp-west,cp-east`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := p.conn.open(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			keyset := p.keyset(cmd, args[0])
			keyset.Mesh = mesh
			keyset.Profile = pb.Profile(pb.Profile_value["PROFILE_"+strings.ToUpper(profile.value)])
			resp, err := c.keys.CreateKeyset(cmd.Context(), &pb.CreateKeysetRequest{Keyset: keyset})
			if err != nil {
				return err
			}
			return show(cmd, p.form, resp, keyTable(resp.GetSigningKeys()))
		},
	}
	profile = choiceFlag(cmd, "profile", "", "", profiles(), "what the tokens are for")
	cmd.Flags().StringVar(&mesh, "mesh", "", "the `name` of the mesh that dataplane tokens are for (default: what follows the slash in NAME)")
	p.flags(cmd, func(text string) string { return " (default: " + text + ")" })
	_ = cmd.MarkFlagRequired("profile") // the flag exists
	return cmd
}

func newKeysetUpdate() *cobra.Command {
	var p policy
	var noConsumers bool
	cmd := &cobra.Command{
		Use:   "update NAME",
		Short: "Change the policy of a keyset",
		Long: `Change the policy of a keyset: what flags are given for, and nothing else. What
concerns new keys, their algorithm and backend, takes effect with the next rotation.
Consumers that are given replace those there are. Name and profile do not change.`,
		Example: `  zonemint keyset update zone --rotate-every 2160h --publish-ahead 24h
  zonemint keyset update edge --distribution manual --consumer cp-west --consumer cp-east
  zonemint keyset update edge --no-consumers
  zonemint keyset update zone --standby kms
  zonemint keyset update zone --standby ""`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			mask := updateMask(cmd, noConsumers)
			if len(mask.GetPaths()) == 0 {
				return usage{errors.New("there is nothing to change: give a flag for what should be different")}
			}
			c, err := p.conn.open(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			resp, err := c.keys.UpdateKeyset(cmd.Context(), &pb.UpdateKeysetRequest{Keyset: p.keyset(cmd, args[0]), UpdateMask: mask})
			if err != nil {
				return err
			}
			return show(cmd, p.form, resp, keysetTable([]*pb.Keyset{resp.GetKeyset()}))
		},
	}
	cmd.ValidArgsFunction = completeKeysetArg(&p.conn)
	p.flags(cmd, func(string) string { return "" })
	cmd.Flags().BoolVar(&noConsumers, "no-consumers", false, "nobody must acknowledge its keys any more")
	cmd.MarkFlagsMutuallyExclusive("consumer", "no-consumers")
	_ = cmd.RegisterFlagCompletionFunc("consumer", completeConsumers(&p.conn)) // the flag exists
	return cmd
}

// updateMask names the fields that flags were given for.
func updateMask(cmd *cobra.Command, noConsumers bool) *fieldmaskpb.FieldMask {
	mask := &fieldmaskpb.FieldMask{}
	for _, flag := range []string{
		"algorithm", "backend", "distribution", "max-valid-for", "default-valid-for", "backdate", "rotate-every", "publish-ahead",
		"allow-mesh-system", "standby", "allow-weaker-standby",
	} {
		if cmd.Flags().Changed(flag) {
			mask.Paths = append(mask.Paths, strings.ReplaceAll(flag, "-", "_"))
		}
	}
	if noConsumers || cmd.Flags().Changed("consumer") {
		mask.Paths = append(mask.Paths, "consumers")
	}
	return mask
}
