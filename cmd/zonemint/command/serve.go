package command

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/zonemint/zonemint/cmd/zonemint/config"
	"github.com/zonemint/zonemint/cmd/zonemint/server"
)

func newServe() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "serve --config FILE",
		Short: "Run a server",
		Long: `Run a server until SIGINT or SIGTERM, then let requests under way finish.

Any number of servers may share a Postgres database; they need the same instance
key and are otherwise independent. deploy/zonemint.yaml explains the
configuration.`,
		Example: `  zonemint serve --config /etc/zonemint/zonemint.yaml`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := config.Read(path)
			if err != nil {
				return usage{err}
			}
			return serve(cmd.Context(), cmd, c)
		},
	}
	configFlag(cmd, &path)
	return cmd
}

func configFlag(cmd *cobra.Command, path *string) {
	cmd.Flags().StringVarP(path, "config", "c", "/etc/zonemint/zonemint.yaml", "the configuration `file`")
	_ = cmd.MarkFlagFilename("config", "yaml", "yml") // the flag exists
}

func serve(ctx context.Context, cmd *cobra.Command, c config.Config) error {
	log := server.Logger(cmd.ErrOrStderr(), c.Log)
	key, err := server.InstanceKey(c.InstanceKey)
	if err != nil {
		return usage{err}
	}
	s, err := server.New(ctx, c, key, log, server.Options{Version: Version()})
	if err != nil {
		return err
	}
	return closing(s, s.Run(ctx, func(string) {}))
}

func newMigrate() *cobra.Command {
	var path string
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "migrate --config FILE",
		Short: "Bring the database's schema up to date",
		Long: `Bring the database's schema up to date. Several may run at once: one works, the
others wait. There is no way back: take a backup first.`,
		Example: `  zonemint migrate --config zonemint.yaml --dry-run
  zonemint migrate --config zonemint.yaml`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := config.Read(path)
			if err != nil {
				return usage{err}
			}
			engine, err := server.OpenEngine(cmd.Context(), c.Database)
			if err != nil {
				return err
			}
			return closing(engine, migrate(cmd, engine, dryRun))
		},
	}
	configFlag(cmd, &path)
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only say what would be done")
	return cmd
}

func migrate(cmd *cobra.Command, engine server.Engine, dryRun bool) error {
	names, err := engine.Pending(cmd.Context())
	did := "would apply"
	if err == nil && !dryRun {
		did = "applied"
		names, err = engine.Migrate(cmd.Context())
	}
	if err == nil && len(names) == 0 {
		_, err = fmt.Fprintln(cmd.OutOrStdout(), "the schema is up to date")
	}
	for _, n := range names { // also when a later one failed
		_, werr := fmt.Fprintln(cmd.OutOrStdout(), did, n)
		err = errors.Join(err, werr)
	}
	return err
}
