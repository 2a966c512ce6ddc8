package command

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/zonemint/zonemint/cmd/zonemint/config"
	"github.com/zonemint/zonemint/cmd/zonemint/server"
	"github.com/zonemint/zonemint/kuma/bridge"
)

// kumaSync is what the flags of "kuma sync" say.
type kumaSync struct {
	conn          connection
	config        string
	once, dry     bool
	metricsListen string
	form          *choice
}

func newKumaSync() *cobra.Command {
	var s kumaSync
	cmd := &cobra.Command{
		Use:   "sync --config FILE",
		Short: "Keep running global control planes up to date with keys and revocations",
		Long: `Keep running global control planes up to date: the public keys of zone keysets in
secrets zone-token-signing-public-key-KID, and the lists of revoked tokens, through
the REST API of the control plane or as Secrets in its Kubernetes cluster. It
writes nothing else. What other people have put there stays.

A key that has been in a control plane for zone_delay is acknowledged under the
control plane's name, for keysets that name it as a consumer: with distribution
kuma-sync a rotation waits for that.

It runs until SIGINT or SIGTERM. --once does everything once, prints what it has
found and done, and fails if something could not be done. --dry-run does the same
without writing anything, anywhere.

It needs an API token with the role verifier, and in a control plane the token of a
user in the group mesh-system:admin. deploy/kuma-sync.yaml explains the configuration.`,
		Example: `  zonemint kuma sync --config /etc/zonemint/kuma-sync.yaml --metrics-listen 127.0.0.1:8442
  zonemint kuma sync --config kuma-sync.yaml --dry-run
  zonemint kuma sync --config kuma-sync.yaml --once -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return s.run(cmd) },
	}
	f := cmd.Flags()
	f.StringVarP(&s.config, "config", "c", "/etc/zonemint/kuma-sync.yaml", "the configuration `file`")
	f.BoolVar(&s.once, "once", false, "do everything once and say what was done")
	f.BoolVar(&s.dry, "dry-run", false, "only say what would be done, once")
	f.StringVar(&s.metricsListen, "metrics-listen", "", "the `host:port` to serve health and metrics at (default: nowhere)")
	_ = cmd.MarkFlagFilename("config", "yaml", "yml") // the flag exists
	s.form = outputFlag(cmd, asTable, asJSON)
	connectionFlags(cmd, &s.conn)
	return cmd
}

func (s kumaSync) run(cmd *cobra.Command) error {
	c, err := config.ReadKumaSync(s.config)
	if err != nil {
		return usage{err}
	}
	b, err := s.open(cmd, c)
	if err != nil {
		return err
	}
	if s.once || s.dry {
		return s.runOnce(cmd, b)
	}
	listener, err := listenPrivate(cmd.Context(), s.metricsListen)
	if err != nil {
		return usage{err}
	}
	g, ctx := errgroup.WithContext(cmd.Context())
	g.Go(func() error { return b.Run(ctx) })
	if listener != nil {
		say(cmd.ErrOrStderr(), "health and metrics are at http://%s", listener.Addr())
		g.Go(func() error { return servePrivate(ctx, listener, bridgeHandler(b)) })
	}
	return g.Wait()
}

func (s kumaSync) runOnce(cmd *cobra.Command, b *bridge.Bridge) error {
	reports, err := b.Once(cmd.Context())
	if err != nil {
		return err
	}
	if err := s.print(cmd, reports); err != nil {
		return err
	}
	var failed []string
	for _, r := range reports {
		if r.Failed() {
			failed = append(failed, r.ControlPlane)
		}
	}
	if len(failed) > 0 {
		return fmt.Errorf("not up to date: %s", strings.Join(failed, ", "))
	}
	return nil
}

// open puts the bridge together.
func (s kumaSync) open(cmd *cobra.Command, c config.KumaSync) (*bridge.Bridge, error) {
	conn := s.conn
	for _, f := range []struct {
		flag, configured string
		value            *string
	}{
		{"addr", c.Zonemint.Addr, &conn.addr}, {"token-file", c.Zonemint.TokenFile, &conn.tokenFile}, {"ca-file", c.Zonemint.CAFile, &conn.caFile},
	} {
		if !cmd.Flags().Changed(f.flag) {
			*f.value = cmp.Or(f.configured, *f.value)
		}
	}
	keys, revocations, err := openBridge(conn, cmd.ErrOrStderr())
	if err != nil {
		return nil, err
	}
	bc := bridge.Config{Keys: keys, Revocations: revocations, Log: server.Logger(cmd.ErrOrStderr(), c.Log), DryRun: s.dry}
	var errs []error
	for _, p := range c.ControlPlanes {
		store, err := openSecrets(p, cmd.ErrOrStderr())
		if err != nil {
			errs = append(errs, fmt.Errorf("control plane %s: %w", p.Name, err))
		}
		bc.ControlPlanes = append(bc.ControlPlanes, bridge.ControlPlane{
			Name: p.Name, Keysets: p.Keysets, Store: store, ZoneDelay: p.ZoneDelay, Resync: p.Resync,
		})
	}
	if err := errors.Join(errs...); err != nil {
		return nil, usage{err}
	}
	return bridge.New(bc)
}

// print prints what was found and done.
func (s kumaSync) print(cmd *cobra.Command, reports []bridge.Report) error {
	if s.form.value == asJSON {
		text, err := json.MarshalIndent(struct {
			DryRun        bool            `json:"dry_run"`
			ControlPlanes []bridge.Report `json:"control_planes"`
		}{s.dry, reports}, "", "  ")
		if err == nil {
			_, err = fmt.Fprintln(cmd.OutOrStdout(), string(text))
		}
		return err
	}
	t := table{header: []string{"CONTROL PLANE", "WHAT", "OUTCOME", "ENTRIES", "ADDED", "REMOVED", "OTHERS", "DETAIL"}}
	for _, r := range reports {
		for _, i := range r.Items {
			what := i.Secret
			if i.Keyset != "" {
				what = "keyset " + i.Keyset
			}
			numbers := []string{"", "", "", ""}
			if i.Entries+i.Added+i.Removed+i.Others > 0 {
				numbers = []string{strconv.Itoa(i.Entries), strconv.Itoa(i.Added), strconv.Itoa(i.Removed), strconv.Itoa(i.Others)}
			}
			t.add(append(append([]string{r.ControlPlane, what, string(i.Outcome)}, numbers...), detailOf(i))...)
		}
	}
	if err := t.print(cmd.OutOrStdout()); err != nil || !s.dry {
		return err
	}
	_, err := fmt.Fprintln(cmd.OutOrStdout(), "This was a dry run; nothing was written.")
	return err
}

// detailOf says in one line what there is to say of an item.
func detailOf(i bridge.Item) string {
	var out []string
	if len(i.Kids) > 0 {
		out = append(out, list(i.Kids))
	}
	if i.Drift != "" {
		out = append(out, "drift: "+i.Drift)
	}
	if i.Error != "" {
		out = append(out, strings.ReplaceAll(i.Error, "\n", "; "))
	}
	return strings.Join(out, "; ")
}

// shutdownTimeout is how long requests for health and metrics may take to end.
const shutdownTimeout = time.Second

// shutdownContext is for the end, when the command's context is over.
func shutdownContext(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
}
