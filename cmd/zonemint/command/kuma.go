package command

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/store"
	"github.com/zonemint/zonemint/token"
)

// Products that read the same tokens and are installed differently.
const (
	productKuma     = "kuma"
	productKongMesh = "kong-mesh"
)

func newKuma() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "kuma",
		Short: "Take over from control planes of Kuma and Kong Mesh, and give them keys",
		Long: `Take over keys and revocations of control planes of Kuma and Kong Mesh, and give
them the public keys and revocations of keysets.`,
	}
	cmd.AddCommand(newKumaExport(), newKumaImport(), newKumaSync())
	return cmd
}

// productFlag adds --product.
func productFlag(cmd *cobra.Command) *choice {
	return choiceFlag(cmd, "product", "", productKuma, []string{productKuma, productKongMesh}, "what the control planes are")
}

// keysetsFlag adds --keyset, several times or with commas.
func keysetsFlag(cmd *cobra.Command, c *connection, names *[]string, usage string) {
	cmd.Flags().StringSliceVar(names, "keyset", nil, usage)
	_ = cmd.RegisterFlagCompletionFunc("keyset", completeKeysets(c)) // the flag exists
}

// profileOf returns the profile of a keyset as control planes know it.
func profileOf(ks *pb.Keyset) token.Profile { return token.Profile(enumName(ks.GetProfile().String())) }

// meshOf returns the mesh that a keyset of dataplane tokens is for. Servers that
// do not say it go by the name.
func meshOf(ks *pb.Keyset) string {
	if ks.GetProfile() != pb.Profile_PROFILE_DATAPLANE {
		return ""
	}
	_, inName, _ := strings.Cut(ks.GetName(), "/")
	return cmp.Or(ks.GetMesh(), inName)
}

// verifies says whether verifiers need a key.
func verifies(k *pb.SigningKey) bool {
	switch store.State(k.GetState()) {
	case store.StatePublished, store.StateActive, store.StateRetiring:
		return true
	default:
		return false
	}
}

// keysetKeys is a keyset with all keys that it ever had.
type keysetKeys struct {
	*pb.Keyset

	keys []*pb.SigningKey
}

// allKeysets returns every keyset that the caller may see, with its keys.
func allKeysets(ctx context.Context, c *client) ([]keysetKeys, error) {
	resp, err := c.keys.ListKeysets(ctx, &pb.ListKeysetsRequest{})
	if err != nil {
		return nil, err
	}
	var out []keysetKeys
	for _, ks := range resp.GetKeysets() {
		keys, err := c.keys.ListSigningKeys(ctx, &pb.ListSigningKeysRequest{Keyset: ks.GetName()})
		if err != nil {
			return nil, err
		}
		out = append(out, keysetKeys{ks, keys.GetSigningKeys()})
	}
	return out, nil
}

// named returns those of the keysets that have the names, in that order.
func named(all []keysetKeys, names []string) ([]keysetKeys, error) {
	var out []keysetKeys
	for i, name := range names {
		at := slices.IndexFunc(all, func(ks keysetKeys) bool { return ks.GetName() == name })
		switch {
		case at < 0:
			return nil, usage{fmt.Errorf("there is no keyset %q, or your API token may not see it: \"zonemint keyset list\" shows those that you may see", name)}
		case slices.Contains(names[:i], name):
			return nil, usage{fmt.Errorf("--keyset %s is there twice", name)}
		}
		out = append(out, all[at])
	}
	return out, nil
}
