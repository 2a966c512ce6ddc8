package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/zonemint/zonemint/backends"
	"github.com/zonemint/zonemint/backends/check"
	"github.com/zonemint/zonemint/cmd/zonemint/config"
	"github.com/zonemint/zonemint/cmd/zonemint/server"
	"github.com/zonemint/zonemint/signer"
)

func newBackend() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "backend",
		Short: "Try out the places where private keys live",
	}
	cmd.AddCommand(newBackendCheck(), newBackendPolicy())
	return cmd
}

// backendCheck is what the flags of "backend check" say.
type backendCheck struct {
	config    string
	algorithm *choice
	count     int
	keep      bool
	adopt     string
	timeout   time.Duration
	form      *choice
}

func newBackendCheck() *cobra.Command {
	var b backendCheck
	cmd := &cobra.Command{
		Use:   "check NAME --config FILE",
		Short: "Make a key in a backend, sign with it, and take it away again",
		Long: `Try out a backend of a server's configuration: connect, make a key, find it again,
read its public half, sign with it and verify the signatures, and destroy it. What
does not work is said with what to do about it, such as the right that is missing.
The server need not run, and its database is not touched.`,
		Example: `  zonemint backend check hsm --config /etc/zonemint/zonemint.yaml
  zonemint backend check hsm --algorithm ES256 --signatures 1000 -o json
  zonemint backend check hsm --adopt 'pkcs11:object=mesh-2026'`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return b.run(cmd, args[0]) },
	}
	configFlag(cmd, &b.config)
	f := cmd.Flags()
	b.algorithm = algorithmFlag(cmd, "the `algorithm` of the key, such as RS256 or ES256 (default: the backend's first)")
	f.IntVar(&b.count, "signatures", 20, "how `many` signatures to make, one after the other")
	f.StringVar(&b.adopt, "adopt", "", "try out the key that the backend knows by this `name`, and make none")
	f.BoolVar(&b.keep, "keep", false, "do not destroy the key")
	f.DurationVar(&b.timeout, "timeout", time.Minute, "how long all of it may take")
	b.form = outputFlag(cmd, asTable, asJSON)
	cmd.MarkFlagsMutuallyExclusive("adopt", "keep")
	cmd.ValidArgsFunction = b.complete
	return cmd
}

// complete completes the names in the configuration.
func (b *backendCheck) complete(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	c, err := config.Read(b.config)
	if err != nil || len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return slices.Sorted(maps.Keys(c.Backends)), cobra.ShellCompDirectiveNoFileComp
}

func (b *backendCheck) run(cmd *cobra.Command, name string) error {
	if b.count < 1 {
		return usage{errors.New("--signatures must be at least 1")}
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), b.timeout)
	defer cancel()
	began := time.Now()
	backend, err := b.open(ctx, name)
	if err != nil {
		return err
	}
	steps := []check.Step{{Name: "connect", Took: time.Since(began)}}
	opts := check.Options{Signatures: b.count, Keep: b.keep, Adopt: b.adopt}
	if b.algorithm.value != "" {
		if opts.Algorithm, err = signer.Parse(b.algorithm.value); err != nil {
			return closing(backend, usage{err})
		}
	}
	steps = append(steps, check.Run(ctx, backend, opts)...)
	return closing(backend, errors.Join(b.print(cmd, name, steps), failed(name, steps)))
}

func (b *backendCheck) open(ctx context.Context, name string) (signer.Backend, error) {
	c, err := config.Read(b.config)
	if err != nil {
		return nil, usage{err}
	}
	if _, ok := c.Backends[name]; !ok && name != c.DefaultBackend {
		return nil, usage{fmt.Errorf("%s names no backend %q, only: %v", b.config, name, slices.Sorted(maps.Keys(c.Backends)))}
	}
	key, err := server.InstanceKey(c.InstanceKey)
	if err != nil {
		return nil, usage{err}
	}
	return backends.Open(ctx, name, c.Backends, backends.Deps{AEAD: key.AEAD(), Logger: slog.New(slog.DiscardHandler), TryOut: true})
}

// failed is what the command ends with if a step did not work.
func failed(name string, steps []check.Step) error {
	for _, s := range steps {
		if s.Err == nil {
			continue
		}
		code := exitFailure
		if signer.CodeOf(s.Err) == signer.Unavailable {
			code = exitUnavailable
		}
		return coded{fmt.Errorf("backend %s: %w\n%s", name, s.Err, s.Hint), code}
	}
	return nil
}

// stepResult is a step as JSON has it.
type stepResult struct {
	Step    string  `json:"step"`
	OK      bool    `json:"ok"`
	Seconds float64 `json:"seconds"`
	Kind    string  `json:"kind,omitempty"`
	Error   string  `json:"error,omitempty"`
	Hint    string  `json:"hint,omitempty"`
}

func (b *backendCheck) print(cmd *cobra.Command, name string, steps []check.Step) error {
	if b.form.value == asJSON {
		results := make([]stepResult, len(steps))
		for i, s := range steps {
			results[i] = stepResult{Step: s.Name, OK: s.Err == nil, Seconds: s.Took.Seconds(), Hint: s.Hint}
			if s.Err != nil {
				results[i].Kind, results[i].Error = signer.CodeOf(s.Err).String(), s.Err.Error()
			}
		}
		enc := json.NewEncoder(cmd.OutOrStdout())
		enc.SetIndent("", "  ")
		return enc.Encode(map[string]any{"backend": name, "steps": results})
	}
	t := table{header: []string{"STEP", "RESULT", "TOOK"}}
	for _, s := range steps {
		result := "ok"
		if s.Err != nil {
			result = signer.CodeOf(s.Err).String()
		}
		t.add(s.Name, result, s.Took.Round(time.Microsecond).String())
	}
	return t.print(cmd.OutOrStdout())
}
