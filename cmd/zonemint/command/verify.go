package command

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/structpb"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/token"
)

// verification is what the flags of "verify" say.
type verification struct {
	conn   connection
	keyset string
	zone   string
	scopes *choices
	form   *choice

	// Offline only.
	jwks      string
	publicKey string
	kid       string
	algorithm *choice
	profile   *choice
}

func newVerify() *cobra.Command {
	var v verification
	cmd := &cobra.Command{
		Use:   "verify [TOKEN-FILE]",
		Short: "Say whether a token is good, and print its claims",
		Long: `Say whether a token is good now, as a verifier with no tolerance for clock
differences would see it, and print its claims. Exit code 5 means that it is not;
the reason is on stderr.

The token comes from a file or from stdin, never from the command line, where
others on the machine could read it.

A server is asked, which also knows what was revoked, unless --jwks or
--public-key say where the keys are. A token is always verified for one keyset
and so for one profile: there is no "any".`,
		Example: `  zonemint generate zone-token --zone east --valid-for 24h | zonemint verify
  zonemint verify --zone east --scope ingress east.token
  zonemint verify --jwks https://zonemint.example.com/keysets/zone/jwks.json east.token
  zonemint verify --public-key key.pub --kid offline-1 east.token`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return v.run(cmd, args) },
	}
	f := cmd.Flags()
	keysetFlag(cmd, &v.conn, &v.keyset, "the `name` of the keyset that the token must be of (default: zone)")
	f.StringVar(&v.zone, "zone", "", "the `name` of the zone that the token must be for")
	v.scopes = choicesFlag(cmd, "scope", nil, scopes(), "what the token must be good for")
	f.StringVar(&v.jwks, "jwks", "", "verify here, with the JWK set at this `file-or-URL`")
	f.StringVar(&v.publicKey, "public-key", "", "verify here, with the public key in this `file`, in PEM")
	f.StringVar(&v.kid, "kid", "", "with --public-key: the key's `ID`")
	v.algorithm = algorithmFlag(cmd, "with --public-key: the `algorithm` (default: the usual one of that kind of key)")
	v.profile = choiceFlag(cmd, "profile", "", string(token.ProfileZone), profiles(), "with --jwks or --public-key: what kind of token it must be")
	v.form = outputFlag(cmd, asTable, asJSON)
	connectionFlags(cmd, &v.conn)
	cmd.MarkFlagsMutuallyExclusive("jwks", "public-key")
	cmd.MarkFlagsMutuallyExclusive("jwks", "keyset")
	cmd.MarkFlagsMutuallyExclusive("public-key", "keyset")
	cmd.MarkFlagsRequiredTogether("public-key", "kid")
	return cmd
}

func (v verification) run(cmd *cobra.Command, args []string) error {
	offline := v.jwks != "" || v.publicKey != ""
	switch {
	case !offline && cmd.Flags().Changed("profile"):
		return usage{errors.New("--profile goes with --jwks or --public-key; a server knows the profile of its --keyset")}
	case v.algorithm.value != "" && v.publicKey == "":
		return usage{errors.New("--algorithm goes with --public-key")}
	}
	raw, err := readToken(cmd, args)
	if err != nil {
		return usage{err}
	}
	verify := v.online
	if offline {
		verify = v.offline
	}
	resp, err := verify(cmd, raw)
	if err != nil {
		return err
	}
	resp = v.require(resp)
	if resp.GetValid() || v.form.value == asJSON {
		if err := show(cmd, v.form, resp, claimsTable(resp)); err != nil {
			return err
		}
	}
	if !resp.GetValid() {
		return coded{fmt.Errorf("not valid (%s): %s", resp.GetReason(), resp.GetDetail()), exitInvalid}
	}
	return nil
}

// readToken reads the token from the file named, or from stdin.
func readToken(cmd *cobra.Command, args []string) (string, error) {
	in := cmd.InOrStdin()
	switch {
	case len(args) == 0 && isTerminal(in):
		say(cmd.ErrOrStderr(), "Paste the token and end with Ctrl-D:")
	case len(args) == 1 && strings.Count(args[0], ".") == 2 && strings.HasPrefix(args[0], "ey"):
		return "", errors.New("this is a token, not a file: others on the machine can read command lines, so give it to stdin")
	case len(args) == 1 && args[0] != "-":
		b, err := os.ReadFile(args[0])
		if err != nil {
			return "", err
		}
		in = bytes.NewReader(b)
	}
	b, err := io.ReadAll(io.LimitReader(in, token.MaxTokenSize+1))
	if err != nil {
		return "", fmt.Errorf("token: %w", err)
	}
	text := strings.TrimSpace(string(b))
	switch {
	case text == "":
		return "", errors.New("there is no token on stdin or in the file")
	case len(b) > token.MaxTokenSize:
		return "", fmt.Errorf("this is no token: it is longer than %d bytes", token.MaxTokenSize)
	}
	return text, nil
}

func (v verification) online(cmd *cobra.Command, raw string) (*pb.VerifyTokenResponse, error) {
	c, err := v.conn.open(cmd.ErrOrStderr())
	if err != nil {
		return nil, err
	}
	return c.tokens.VerifyToken(cmd.Context(), &pb.VerifyTokenRequest{Token: raw, Keyset: v.keyset})
}

// require returns the answer for what --zone and --scope ask for: a valid token
// that is for something else is not.
func (v verification) require(resp *pb.VerifyTokenResponse) *pb.VerifyTokenResponse {
	if !resp.GetValid() || v.zone == "" && len(v.scopes.values) == 0 {
		return resp
	}
	claims := zoneClaims(resp.GetClaims())
	err := token.RequireScopes(v.scopes.values...)(claims)
	if v.zone != "" {
		err = errors.Join(token.RequireZone(v.zone)(claims), err)
	}
	if err == nil {
		return resp
	}
	return &pb.VerifyTokenResponse{
		Reason: token.Reason(token.ErrRequirement), Detail: strings.ReplaceAll(err.Error(), "\n", "; "), Keyset: resp.GetKeyset(),
	}
}

func zoneClaims(claims *structpb.Struct) token.ZoneClaims {
	c := token.ZoneClaims{Zone: claims.GetFields()["Zone"].GetStringValue()}
	for _, s := range claims.GetFields()["Scope"].GetListValue().GetValues() {
		c.Scope = append(c.Scope, s.GetStringValue())
	}
	return c
}

// claimsTable lists the claims of a valid token, those of its profile first.
func claimsTable(resp *pb.VerifyTokenResponse) table {
	t := table{}
	t.add("valid", "true")
	t.add("kid", resp.GetKid())
	if resp.GetKeyset() != "" {
		t.add("keyset", resp.GetKeyset())
	}
	fields := resp.GetClaims().GetFields()
	for _, name := range slices.Sorted(maps.Keys(fields)) { // capitals come first
		t.add(name, claimText(name, fields[name]))
	}
	return t
}

func claimText(name string, v *structpb.Value) string {
	switch kind := v.GetKind().(type) {
	case *structpb.Value_StringValue:
		return kind.StringValue
	case *structpb.Value_NumberValue:
		if name == "exp" || name == "nbf" || name == "iat" {
			return time.Unix(int64(kind.NumberValue), 0).UTC().Format(time.RFC3339)
		}
	case *structpb.Value_ListValue:
		var values []string
		for _, e := range kind.ListValue.GetValues() {
			values = append(values, claimText("", e))
		}
		return list(values)
	}
	text, err := v.MarshalJSON()
	if err != nil {
		return "?"
	}
	return string(text)
}
