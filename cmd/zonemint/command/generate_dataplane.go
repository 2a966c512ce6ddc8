package command

import (
	"maps"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/service/profile"
)

// dataplane is what the flags say of a dataplane.
type dataplane struct {
	mesh, name, workload, proxyType string
	tags                            map[string]string // for each tag its values, separated by commas
}

func (d *dataplane) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVarP(&d.mesh, "mesh", "m", "default", "the `name` of the mesh")
	f.StringVar(&d.name, "name", "", "the `name` of the dataplane; without it the token is for any that the rest fits")
	f.StringToStringVar(&d.tags, "tag", nil, "a tag that the dataplane must have, and the values it may have there: `NAME=VALUE,...`")
	f.StringVar(&d.workload, "workload", "", "the `workload` that the dataplane must belong to, by its label kuma.io/workload")
	f.StringVar(&d.proxyType, "proxy-type", "", "\"dataplane\", which changes nothing; ingress and egress need a zone token")
	_ = cmd.RegisterFlagCompletionFunc("proxy-type", cobra.FixedCompletions([]string{"dataplane"}, cobra.ShellCompDirectiveNoFileComp)) // the flag exists
}

func (d *dataplane) wish() profile.Dataplane {
	w := profile.Dataplane{Mesh: d.mesh, Name: d.name, Type: d.proxyType, Workload: d.workload, Tags: map[string][]string{}}
	for name, values := range maps.All(d.tags) {
		w.Tags[name] = strings.Split(values, ",")
	}
	return w
}

// request returns the request for the same token.
func (d *dataplane) request(m *minting) *pb.IssueDataplaneTokenRequest {
	w := d.wish()
	req := &pb.IssueDataplaneTokenRequest{
		Mesh: w.Mesh, Name: w.Name, Type: w.Type, Workload: w.Workload, Tags: map[string]*pb.TagValues{},
		ValidFor: durationpb.New(m.validFor), Keyset: m.keyset,
	}
	for name, values := range w.Tags {
		req.Tags[name] = &pb.TagValues{Values: values}
	}
	return req
}

func newGenerateDataplaneToken() *cobra.Command {
	var m minting
	var d dataplane
	cmd := &cobra.Command{
		Use:   "dataplane-token --name NAME --valid-for DURATION",
		Short: "Issue a token by which a dataplane proxy proves who it is",
		Long: `Issue a dataplane token, for one dataplane by its name, or for those of a mesh that
have certain tags or belong to a workload. It is printed with nothing around it, and
with a newline only on a terminal. A token that is bound to nothing is refused: it
would be good for every dataplane of the mesh.
` + offlineHelp,
		Example: `  zonemint generate dataplane-token --mesh default --name web-1 --valid-for 24h > web-1.token
  zonemint generate dataplane-token --tag kuma.io/service=web,web-api --valid-for 24h
  zonemint generate dataplane-token --mesh shop --workload checkout --valid-for 24h -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return m.run(cmd, d.wish(), func(c *client) (answer, error) {
				return c.tokens.IssueDataplaneToken(cmd.Context(), d.request(&m))
			})
		},
	}
	d.flags(cmd)
	m.flags(cmd, "the one of the mesh")
	return cmd
}
