package command

import (
	"context"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
)

// welcome shows what a fresh development server can do, beginning with a token
// that it has really issued.
func welcome(ctx context.Context, cmd *cobra.Command, addr, tokenFile string) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	c, err := connection{addr: addr, tokenFile: tokenFile, timeout: 10 * time.Second}.open(cmd.ErrOrStderr())
	if err != nil {
		warn(cmd.ErrOrStderr(), "no example token: %s", describe(err))
		return
	}
	t, err := c.tokens.IssueZoneToken(ctx, &pb.IssueZoneTokenRequest{
		Zone: "west", Scopes: []string{"ingress", "egress"}, ValidFor: durationpb.New(24 * time.Hour),
	})
	if err != nil {
		warn(cmd.ErrOrStderr(), "no example token: %s", describe(err))
		return
	}
	say(cmd.OutOrStdout(), `zonemint is listening on %[1]s

A token for zone "west", valid for 24 hours:

%[2]s

Control planes find the public keys at:

  %[1]s/.well-known/jwks.json

Try next, in another shell:

  export ZONEMINT_ADDR=%[1]s ZONEMINT_TOKEN_FILE=%[3]s
  zonemint generate zone-token --zone east --valid-for 24h
  zonemint generate zone-token --zone east --valid-for 24h | zonemint verify
  zonemint key list
  curl -sS %[1]s/keysets/zone/jwks.json
  curl -sS %[1]s/zonemint.v1.TokenService/IssueZoneToken \
    -H "Authorization: Bearer $(cat $ZONEMINT_TOKEN_FILE)" \
    -H 'Content-Type: application/json' -d '{"zone": "east", "validFor": "3600s"}'

("go run ./cmd/zonemint" does for "zonemint".) Stop with Ctrl-C.`, addr, t.GetToken(), tokenFile)
}
