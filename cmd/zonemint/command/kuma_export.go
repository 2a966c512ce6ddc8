package command

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/zonemint/zonemint/kuma"
	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
)

// The formats of "kuma export", and what --only chooses.
const (
	formatConfig     = "config"
	formatHelm       = "helm"
	formatKubernetes = "kubernetes"
	formatUniversal  = "universal"

	asYAML = "yaml"

	onlyKeys        = "keys"
	onlyRevocations = "revocations"
)

// kumaExport is what the flags of "kuma export" say.
type kumaExport struct {
	conn          connection
	keysets       []string
	format, only  *choice
	product, form *choice
	namespace     string
	config        kuma.ConfigOptions
	out           string
}

func newKumaExport() *cobra.Command {
	var e kumaExport
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Print public keys and revocations as control planes take them in",
		Long: `Print the public keys that verify tokens, and the IDs of revoked tokens, as control
planes of Kuma and Kong Mesh take them in. It prints all or, if a control plane
would choke on any of it, nothing: a public key in the wrong place can stop one
from sending anything to any zone, and another kind of key keeps it from starting.

Formats:
  config      the part of a control plane's configuration with the public keys of
              zone, dataplane and user tokens. Merge it, and restart.
  helm        the same as values for the Helm chart.
  kubernetes  Secrets for "kubectl apply -f -": keys of zone tokens, which reach all
              zones within seconds, and lists of revoked tokens of any kind.
  universal   the same as resources for "kumactl apply -f -".

Keys of dataplane and user tokens cannot be pushed as secrets, because control
planes want private keys there. They need "config" or "helm".

With "config" and "helm", --use-secrets and --enable-issuer say what else a control
plane does. What is right while you move: it goes on using its secrets, which have
the keys of tokens in the field, and which zonemint's keys can be pushed to. Switch
its issuer off when nobody asks it for tokens any more (--enable-issuer=false), and
its secrets when all its tokens have expired (--use-secrets=false).`,
		Example: `  zonemint kuma export > keys.yaml
  zonemint kuma export --format kubernetes --out secrets.yaml       # for kubectl apply -f
  zonemint kuma export --format universal --only revocations > revocations.yaml  # for kumactl apply -f
  zonemint kuma export --format helm --product kong-mesh --out values-keys.yaml`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return e.run(cmd) },
	}
	keysetsFlag(cmd, &e.conn, &e.keysets, "the `name` of a keyset, several times if need be (default: all that you may see)")
	e.format = choiceFlag(cmd, "format", "", formatConfig, []string{formatConfig, formatHelm, formatKubernetes, formatUniversal}, "for what it is")
	e.only = choiceFlag(cmd, "only", "", "", []string{onlyKeys, onlyRevocations}, "leave out the other")
	e.product = productFlag(cmd)
	f := cmd.Flags()
	f.StringVar(&e.namespace, "namespace", "", "the `name` of the control plane's namespace, for --format kubernetes (default: kuma-system or kong-mesh-system)")
	f.BoolVar(&e.config.UseSecrets, "use-secrets", true, "control planes trust the keys in their secrets too")
	f.BoolVar(&e.config.EnableIssuer, "enable-issuer", true, "control planes issue tokens themselves too")
	f.BoolVar(&e.config.Imported, "imported", false, "also keys that were taken over from a control plane, for --use-secrets=false")
	f.StringVar(&e.out, "out", "", "write to this `file`")
	e.form = outputFlag(cmd, asYAML, asJSON)
	connectionFlags(cmd, &e.conn)
	return cmd
}

func (e kumaExport) run(cmd *cobra.Command) error {
	if err := e.check(cmd); err != nil {
		return usage{err}
	}
	c, err := e.conn.open(cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	trust, err := e.read(cmd.Context(), c)
	if err != nil {
		return err
	}
	doc, err := e.document(trust)
	if err != nil {
		return err
	}
	text, err := doc.YAML()
	if e.form.value == asJSON {
		text, err = doc.JSON()
	}
	if err != nil {
		return err
	}
	for _, note := range doc.Notes {
		say(cmd.ErrOrStderr(), "zonemint: %s", note)
	}
	if e.out != "" {
		return os.WriteFile(e.out, text, 0o644) //nolint:gosec // public keys and IDs of dead tokens are no secrets
	}
	_, err = cmd.OutOrStdout().Write(text)
	return err
}

// inConfig says whether the format is a part of a configuration.
func (e kumaExport) inConfig() bool {
	return e.format.value == formatConfig || e.format.value == formatHelm
}

// check refuses flags that mean nothing in the format, rather than let anybody
// believe that they did something.
func (e kumaExport) check(cmd *cobra.Command) error {
	changed := cmd.Flags().Changed
	for _, name := range []string{"use-secrets", "enable-issuer", "imported"} {
		if changed(name) && !e.inConfig() {
			return fmt.Errorf("--%s is about a control plane's configuration: it goes with --format config or helm", name)
		}
	}
	switch {
	case changed("namespace") && e.format.value != formatKubernetes:
		return errors.New("--namespace goes with --format kubernetes")
	case e.only.value == onlyRevocations && e.inConfig():
		return errors.New("revocations have no place in a control plane's configuration: take --format kubernetes or universal")
	case e.config.Imported && e.config.UseSecrets:
		return errors.New("--imported goes with --use-secrets=false: a control plane that uses its secrets has these keys, and one in its configuration takes the place of another with the same number")
	}
	return nil
}

// read asks the server for all that is to be exported. The keys of other keysets
// are read too, so that no key gets into the place of another kind.
func (e kumaExport) read(ctx context.Context, c *client) (kuma.Trust, error) {
	all, err := allKeysets(ctx, c)
	if err != nil {
		return kuma.Trust{}, err
	}
	chosen := all
	if len(e.keysets) > 0 {
		if chosen, err = named(all, e.keysets); err != nil {
			return kuma.Trust{}, err
		}
	}
	t := kuma.Trust{At: time.Now()}
	for _, ks := range all {
		if !slices.ContainsFunc(chosen, func(c keysetKeys) bool { return c.GetName() == ks.GetName() }) {
			t.Others = append(t.Others, keysetFor(ks))
		}
	}
	for _, ks := range chosen {
		k := keysetFor(ks)
		if !e.inConfig() && e.only.value != onlyKeys {
			if k.Revoked, err = revokedIDs(ctx, c, k.Name); err != nil {
				return kuma.Trust{}, err
			}
		}
		t.Keysets = append(t.Keysets, k)
	}
	if len(t.Keysets) == 0 {
		return kuma.Trust{}, errors.New("there is no keyset that your API token may see")
	}
	return t, nil
}

func keysetFor(ks keysetKeys) kuma.Keyset {
	out := kuma.Keyset{Name: ks.GetName(), Profile: profileOf(ks.Keyset), Mesh: meshOf(ks.Keyset)}
	for _, k := range ks.keys {
		if verifies(k) {
			out.Keys = append(out.Keys, kuma.Key{
				ID: k.GetKid(), Serial: int(k.GetSerial()), State: k.GetState(), Algorithm: k.GetAlgorithm(),
				Imported: k.GetImported(), PEM: k.GetPublicKey(),
			})
		}
	}
	return out
}

// revokedIDs lists the tokens of a keyset that are revoked. It stops where no
// secret could hold them all.
func revokedIDs(ctx context.Context, c *client, keyset string) (kuma.List, error) {
	var ids kuma.List
	size := 0
	err := eachRevocation(ctx, c, keyset, func(r *pb.Revocation) bool {
		if r.GetLiftedAt() == nil {
			ids = append(ids, r.GetJti())
			size += len(r.GetJti()) + 1
		}
		return size <= 2*kuma.MaxListSize
	})
	return ids, err
}

// eachRevocation calls f for each revocation of a keyset, until f has enough.
func eachRevocation(ctx context.Context, c *client, keyset string, f func(*pb.Revocation) bool) error {
	for page := ""; ; {
		resp, err := c.revocations.ListRevocations(ctx, &pb.ListRevocationsRequest{Keyset: keyset, PageSize: maxPage, PageToken: page})
		if err != nil {
			return err
		}
		for _, r := range resp.GetRevocations() {
			if !f(r) {
				return nil
			}
		}
		if page = resp.GetNextPageToken(); page == "" {
			return nil
		}
	}
}

func (e kumaExport) document(t kuma.Trust) (kuma.Document, error) {
	kongMesh := e.product.value == productKongMesh
	secrets := kuma.SecretOptions{Keys: e.only.value != onlyRevocations, Revocations: e.only.value != onlyKeys}
	switch e.format.value {
	case formatHelm:
		return t.HelmValues(e.config, kongMesh)
	case formatKubernetes:
		namespace := e.namespace
		if namespace == "" {
			namespace = map[bool]string{false: "kuma-system", true: "kong-mesh-system"}[kongMesh]
		}
		return t.Kubernetes(namespace, secrets)
	case formatUniversal:
		return t.Universal(secrets)
	default:
		return t.Config(e.config)
	}
}
