package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/zonemint/zonemint/kuma"
	"github.com/zonemint/zonemint/token"
)

const kumaImportHelp = `Take over the keys with which a control plane of Kuma or Kong Mesh has signed tokens,
and its lists of revoked tokens, into keysets of the same kind of token. What it has
issued stays valid for everybody who verifies with these keysets, and what it has
revoked stays revoked. Nothing is changed in the control plane.

Keys are taken over as public keys that verify only, under the control plane's own
key IDs, such as 1. A private key that is read on the way proves to the server that
the key is yours: it signs a challenge in this process, and is not sent, written or
shown. Where only the public key can be read, a token that it has signed proves the
same: one from --proof-token-file, or one that the control plane is asked for, valid
for a minute and for a zone that cannot exist.

--trusted-until says when the last of these tokens has expired. Say it with care:
control planes give out tokens for ten years where nobody says how long. After that
time the keys are not trusted any more; tokens that live longer have to be issued
anew before. Revocations are kept until then.

Secrets are read from the global control plane (--control-plane), as an
administrator, or from files (--secrets) with what these commands print:

  kumactl get global-secrets -o yaml
  kumactl get secrets --mesh default -o yaml
  kubectl get secrets -n kuma-system -o yaml

Such files have private keys: delete them afterwards.

Doing it again changes nothing that is done, and goes on with what is not.`

// kumaImport is what the flags of "kuma import" say.
type kumaImport struct {
	conn         connection
	keysets      []string
	controlPlane controlPlane
	secrets      []string // files
	proofTokens  []string // files
	trustedUntil *instant
	trustedFor   time.Duration
	dryRun       bool
	form         *choice
}

func newKumaImport() *cobra.Command {
	var i kumaImport
	cmd := &cobra.Command{
		Use:   "import --keyset NAME --trusted-until TIME",
		Short: "Take over a control plane's keys and revocations, so that its tokens stay valid",
		Long:  kumaImportHelp,
		Example: `  zonemint kuma import --control-plane https://kuma.example.com:5682 --control-plane-token-file admin.jwt --keyset zone,user --trusted-until 2027-06-30T00:00:00Z --dry-run
  zonemint kuma import --secrets secrets.yaml --keyset zone,dataplane/default --trusted-for 8760h`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return i.run(cmd) },
	}
	keysetsFlag(cmd, &i.conn, &i.keysets, "the `names` of the keysets to import into, with commas or several times")
	f := cmd.Flags()
	i.controlPlane.flags(cmd)
	f.StringArrayVar(&i.secrets, "secrets", nil, "read secrets from this `file`, several times if need be; - is stdin")
	f.StringArrayVar(&i.proofTokens, "proof-token-file", nil, "a `file` with a token of a key whose private half cannot be read, several times if need be")
	i.trustedUntil = futureFlag(cmd, "trusted-until", "when the last token in the field has expired, a `time` or a duration from now")
	f.DurationVar(&i.trustedFor, "trusted-for", 0, "the same as a `duration` from now")
	f.BoolVar(&i.dryRun, "dry-run", false, "say what would be done, and do nothing")
	i.form = outputFlag(cmd, asTable, asJSON)
	connectionFlags(cmd, &i.conn)
	_ = cmd.MarkFlagRequired("keyset") // the flag exists
	cmd.MarkFlagsOneRequired("control-plane", "secrets")
	cmd.MarkFlagsOneRequired("trusted-until", "trusted-for")
	cmd.MarkFlagsMutuallyExclusive("trusted-until", "trusted-for")
	return cmd
}

func (i kumaImport) run(cmd *cobra.Command) error {
	until, err := i.until()
	if err != nil {
		return usage{err}
	}
	t := &takeover{until: until, dryRun: i.dryRun, progress: cmd.ErrOrStderr()}
	if t.proofs, err = readProofs(cmd, i.proofTokens); err != nil {
		return usage{err}
	}
	if i.controlPlane.addr != "" {
		if t.reader, err = i.controlPlane.open(cmd.ErrOrStderr()); err != nil {
			return usage{err}
		}
	}
	if t.client, err = i.conn.open(cmd.ErrOrStderr()); err != nil {
		return err
	}
	if t.all, err = allKeysets(cmd.Context(), t.client); err != nil {
		return err
	}
	into, err := named(t.all, i.keysets)
	if err != nil {
		return err
	}
	if err := onePerPlace(into); err != nil {
		return usage{err}
	}
	secrets, err := i.read(cmd, t.reader, into)
	if err != nil {
		return err
	}
	defer wipe(secrets)
	report := t.into(cmd.Context(), into, secrets)
	return report.show(cmd, i.form, t)
}

// until returns when to stop trusting the keys.
func (i kumaImport) until() (time.Time, error) {
	at := i.trustedUntil.at
	if i.trustedUntil.text == "" {
		at = time.Now().Add(i.trustedFor)
	}
	if !at.After(time.Now()) {
		return at, errors.New("the keys would be trusted until a time that has passed: see --trusted-until")
	}
	return at, nil
}

// onePerPlace refuses to trust one key of a control plane in two keysets.
func onePerPlace(into []keysetKeys) error {
	type place struct {
		profile token.Profile
		mesh    string
	}
	taken := map[place]string{}
	for _, ks := range into {
		p := place{profileOf(ks.Keyset), meshOf(ks.Keyset)}
		if p.profile == token.ProfileDataplane && p.mesh == "" {
			return fmt.Errorf("keyset %q has no mesh, so it is not known which keys are for it", ks.GetName())
		}
		if other, ok := taken[p]; ok {
			return fmt.Errorf("keysets %q and %q are for the same tokens: import into one of them", other, ks.GetName())
		}
		taken[p] = ks.GetName()
	}
	return nil
}

// read returns the secrets that concern the keysets, from the files if there are
// any, and else from the control plane.
func (i kumaImport) read(cmd *cobra.Command, reader *kuma.Reader, into []keysetKeys) ([]kuma.Secret, error) {
	concern := func(r kuma.Ref) bool {
		return slices.ContainsFunc(into, func(ks keysetKeys) bool { return r.Concerns(profileOf(ks.Keyset), meshOf(ks.Keyset)) })
	}
	if len(i.secrets) > 0 {
		return readSecretFiles(cmd, i.secrets, concern)
	}
	meshes := []string{""}
	for _, ks := range into {
		if mesh := meshOf(ks.Keyset); mesh != "" {
			meshes = append(meshes, mesh)
		}
	}
	var out []kuma.Secret
	for _, mesh := range meshes {
		secrets, err := reader.Secrets(cmd.Context(), mesh, concern)
		if err != nil {
			wipe(out)
			return nil, err
		}
		out = append(out, secrets...)
	}
	return out, nil
}

func readSecretFiles(cmd *cobra.Command, paths []string, concern func(kuma.Ref) bool) ([]kuma.Secret, error) {
	var out []kuma.Secret
	for _, path := range paths {
		secrets, err := readSecretFile(cmd, path)
		if err != nil {
			wipe(out)
			return nil, usage{fmt.Errorf("--secrets %s: %w", path, err)}
		}
		for _, s := range secrets {
			if concern(s.Ref) {
				out = append(out, s)
			} else {
				clear(s.Data)
			}
		}
	}
	return out, nil
}

func readSecretFile(cmd *cobra.Command, path string) ([]kuma.Secret, error) {
	if path == "-" {
		return kuma.ReadSecrets(cmd.InOrStdin())
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // it was read
	warnIfOpen(cmd.ErrOrStderr(), f)
	return kuma.ReadSecrets(f)
}

// warnIfOpen warns if others can read a file that may have private keys.
func warnIfOpen(warnings io.Writer, f *os.File) {
	if info, err := f.Stat(); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0 && runtime.GOOS != "windows" {
		warn(warnings, "others on this machine may read %s: chmod 600 it, and delete it afterwards", f.Name())
	}
}

// wipe overwrites what was read. Copies that were made on the way, by the parser of
// keys among others, are gone when the process ends.
func wipe(secrets []kuma.Secret) {
	for _, s := range secrets {
		clear(s.Data)
	}
}

// readProofs reads tokens that prove possession of keys, by key ID.
func readProofs(cmd *cobra.Command, paths []string) (map[string]string, error) {
	out := map[string]string{}
	for _, path := range paths {
		text, err := readToken(cmd, []string{path})
		if err != nil {
			return nil, fmt.Errorf("--proof-token-file: %w", err)
		}
		header, err := token.UnverifiedHeader(text)
		if err != nil {
			return nil, fmt.Errorf("--proof-token-file: %w", err)
		}
		out[header.KeyID] = text
	}
	return out, nil
}

// controlPlane says how to reach a control plane's REST API.
type controlPlane struct{ addr, tokenFile, caFile string }

func (p *controlPlane) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&p.addr, "control-plane", "", "the `URL` of the global control plane's REST API")
	f.StringVar(&p.tokenFile, "control-plane-token-file", "", "a `file` with the token of one of its administrators")
	f.StringVar(&p.caFile, "control-plane-ca-file", "", "a `file` with the certificate authority to trust there, in PEM")
	_ = cmd.MarkFlagFilename("control-plane-ca-file", "pem", "crt") // the flag exists
}

func (p *controlPlane) open(warnings io.Writer) (*kuma.Reader, error) {
	transport, err := connection{caFile: p.caFile}.transport()
	if err != nil {
		return nil, fmt.Errorf("--control-plane-ca-file: %s", strings.TrimPrefix(err.Error(), "--ca-file: "))
	}
	o := kuma.ReaderOptions{Transport: transport}
	if p.tokenFile != "" {
		text, err := readSecret(p.tokenFile, warnings)
		if err != nil {
			return nil, fmt.Errorf("--control-plane-token-file: %w", err)
		}
		o.Token = strings.TrimSpace(string(text))
		if o.Token == "" || strings.ContainsAny(o.Token, " \t\r\n") {
			return nil, fmt.Errorf("--control-plane-token-file: %s does not hold one token and nothing else", p.tokenFile)
		}
	}
	reader, err := kuma.NewReader(p.addr, o)
	if err != nil {
		return nil, fmt.Errorf("--control-plane %w", err)
	}
	if base := (connection{addr: p.addr}); !base.encrypted() {
		warn(warnings, "private keys and your token travel from %s unencrypted", p.addr)
	}
	return reader, nil
}

// encrypted says whether nobody on the way can read what is sent.
func (c connection) encrypted() bool {
	u, err := c.base()
	return err == nil && (u.Scheme == "https" || loopback(u.Hostname()))
}

// takeover is an import under way.
type takeover struct {
	client *client
	reader *kuma.Reader // nil without access to the control plane
	proofs map[string]string
	asked  bool // the control plane for a proof
	all    []keysetKeys
	until  time.Time
	dryRun bool

	telling  sync.Mutex // one line at a time
	progress io.Writer
}

func (t *takeover) tell(format string, args ...any) {
	t.telling.Lock()
	defer t.telling.Unlock()
	say(t.progress, "zonemint: "+format, args...)
}

// into takes over what concerns each of the keysets. Revocations come first: a
// token that is revoked must not be valid for a moment because its key is known.
func (t *takeover) into(ctx context.Context, into []keysetKeys, secrets []kuma.Secret) *importReport {
	report := &importReport{Keys: []importedKey{}, Revocations: []importedList{}}
	for _, ks := range into {
		found := len(report.Keys)
		lists := t.revocations(ctx, ks, secrets)
		report.Revocations = append(report.Revocations, lists...)
		if slices.ContainsFunc(lists, func(l importedList) bool { return l.err != nil }) {
			continue
		}
		report.Keys = append(report.Keys, t.keys(ctx, ks, secrets)...)
		if len(report.Keys) == found && len(lists) == 0 {
			report.empty = append(report.empty, ks.GetName())
		}
	}
	return report
}
