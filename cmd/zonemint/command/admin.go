package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/user"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/zonemint/zonemint/cmd/zonemint/config"
	"github.com/zonemint/zonemint/cmd/zonemint/server"
	"github.com/zonemint/zonemint/instancekey"
	"github.com/zonemint/zonemint/service/caller"
	"github.com/zonemint/zonemint/store"
)

// closing closes c and returns err together with what closing brought.
func closing(c io.Closer, err error) error { return errors.Join(err, c.Close()) }

func newAdminToken() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "admin-token",
		Short: "Make an administrator's API token, on the server's own machine",
	}
	cmd.AddCommand(newAdminTokenCreate())
	return cmd
}

func newAdminTokenCreate() *cobra.Command {
	var path, name, out string
	var expiresIn time.Duration
	cmd := &cobra.Command{
		Use:   "create --config FILE",
		Short: "Make an administrator's API token and print it, or write it to a file",
		Long: `Make an API token with the role admin. It goes around the API, to the database,
and so needs the server's configuration and its instance key. Use it for the
first token and after a lock-out; make all others with "zonemint api-token create".

The token is printed with nothing around it, and with a newline only on a
terminal. On SQLite stop the server first: only one process at a time has the
database.`,
		Example: `  zonemint admin-token create --config /etc/zonemint/zonemint.yaml --out admin.token`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if expiresIn < time.Second {
				return usage{errors.New("--expires-in must be at least 1s")}
			}
			_, db, err := openStore(cmd, path, true)
			if err != nil {
				return err
			}
			return closing(db, adminToken(cmd, db, name, out, expiresIn))
		},
	}
	configFlag(cmd, &path)
	cmd.Flags().StringVar(&name, "name", "admin", "a `name` for the token")
	cmd.Flags().StringVar(&out, "out", "", "write the token to this new `file`, readable by you alone, instead of printing it")
	cmd.Flags().DurationVar(&expiresIn, "expires-in", 90*24*time.Hour, "how long the token is valid")
	return cmd
}

// openStore opens the database of a configuration file, for commands that run
// on the server's own machine. With migrate it does as the configuration says;
// otherwise it leaves the schema alone.
func openStore(cmd *cobra.Command, path string, migrate bool) (config.Config, *store.DB, error) {
	c, err := config.Read(path)
	if err != nil {
		return c, nil, usage{err}
	}
	c.Database.Migrate = c.Database.Migrate && migrate
	key, err := server.InstanceKey(c.InstanceKey)
	if err != nil {
		return c, nil, usage{err}
	}
	db, err := server.OpenStore(cmd.Context(), c, key, slog.New(slog.DiscardHandler))
	return c, db, err
}

func adminToken(cmd *cobra.Command, db *store.DB, name, out string, expiresIn time.Duration) error {
	return deliver(cmd, out, func() (string, error) {
		text, made, err := createAdmin(cmd.Context(), db, name, expiresIn)
		if err == nil {
			say(cmd.ErrOrStderr(), "API token %s, role admin, expires %s. It cannot be shown again.",
				made.ID, made.ExpiresAt.Format(time.RFC3339))
		}
		return text, err
	})
}

// deliver has a secret made and prints it, or writes it to a new file. The file
// comes first: a secret that cannot be shown again must not be made and then
// find no place.
func deliver(cmd *cobra.Command, path string, secret func() (string, error)) error {
	if path == "" {
		text, err := secret()
		if err != nil {
			return err
		}
		return bare(cmd.OutOrStdout(), text)
	}
	f, err := newFile(path)
	if err != nil {
		return err
	}
	text, err := secret()
	if err != nil {
		return errors.Join(closing(f, err), os.Remove(f.Name()))
	}
	_, err = f.WriteString(text + "\n")
	return closing(f, err)
}

func createAdmin(ctx context.Context, db *store.DB, name string, expiresIn time.Duration) (string, store.APIToken, error) {
	by := store.Actor{Name: "cli"}
	if u, err := user.Current(); err == nil {
		by.Name = "cli/" + u.Username
	}
	return caller.Create(ctx, db, store.APIToken{Name: name, Roles: []string{string(caller.Admin)}}, expiresIn, by)
}

// newFile makes a file that must not exist yet, readable by its owner alone.
func newFile(path string) (*os.File, error) {
	return os.OpenFile(filepath.Clean(path), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
}

func newInstanceKey() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "instance-key",
		Short: "Make and inspect the key that protects local private keys and the database's rows",
	}
	cmd.AddCommand(newInstanceKeyGenerate(), newInstanceKeyShow())
	return cmd
}

func newInstanceKeyGenerate() *cobra.Command {
	return &cobra.Command{
		Use:   "generate FILE",
		Short: "Make an instance key in a new file, readable by you alone",
		Long: `Make an instance key in a new file. Every server on the same database needs the
same one. Keep a copy apart from the database's backups: without it local private
keys are lost, and with both of them anybody can sign.`,
		Example: `  zonemint instance-key generate /etc/zonemint/instance.key`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := instancekey.Generate()
			if err != nil {
				return err
			}
			if err := key.WriteFile(args[0]); err != nil {
				return err
			}
			say(cmd.ErrOrStderr(), "instance key %s written to %s", key.ID(), args[0])
			return nil
		},
	}
}

func newInstanceKeyShow() *cobra.Command {
	return &cobra.Command{
		Use:   "show FILE",
		Short: "Print the ID of an instance key, and nothing secret",
		Long: `Print the ID of an instance key, to see whether two files hold the same one. It is
not secret.`,
		Example: `  zonemint instance-key show /etc/zonemint/instance.key`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := instancekey.ReadFile(args[0])
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), key.ID())
			return err
		},
	}
}
