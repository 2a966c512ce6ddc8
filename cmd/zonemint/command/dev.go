package command

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/zonemint/zonemint/cmd/zonemint/config"
	"github.com/zonemint/zonemint/cmd/zonemint/server"
	"github.com/zonemint/zonemint/instancekey"
	"github.com/zonemint/zonemint/service/caller"
	"github.com/zonemint/zonemint/store"
)

func newDev() *cobra.Command {
	var listen, data string
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Try zonemint out: one process, SQLite, local keys, loopback only",
		Long: `Run a server for trying things out. It keeps a SQLite database, an instance key
and the administrator's API token in one folder, listens on loopback without TLS,
and makes the keysets zone, user and dataplane/default. JWK sets may be kept for
seconds instead of minutes, so that a rotation can be watched. Delete the folder
to start afresh. For anything else use "zonemint serve".

Once it listens, the folder holds the files "addr", with the URL for --addr, and
"admin.token", for --token-file. "addr" goes away when the server ends.`,
		Example: `  zonemint dev
  zonemint dev --listen 127.0.0.1:0 --data ./try`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if data == "" {
				dir, err := defaultDataDir()
				if err != nil {
					return err
				}
				data = dir
			}
			return dev(cmd.Context(), cmd, listen, data)
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "127.0.0.1:8440", "the loopback `address` to listen on; port 0 picks a free one")
	cmd.Flags().StringVar(&data, "data", "", "the `folder` for database and keys (default: zonemint-dev in your data folder)")
	_ = cmd.MarkFlagDirname("data") // the flag exists
	return cmd
}

// defaultDataDir follows the XDG base directory specification.
func defaultDataDir() (string, error) {
	if dir := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "zonemint-dev"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("no place for the data, name one with --data: %w", err)
	}
	return filepath.Join(home, ".local", "share", "zonemint-dev"), nil
}

func dev(ctx context.Context, cmd *cobra.Command, listen, data string) error {
	host, _, err := net.SplitHostPort(listen)
	if err != nil || !loopback(host) {
		return usage{fmt.Errorf("--listen %s: dev listens on loopback only; use \"zonemint serve\" for more", listen)}
	}
	if err := os.MkdirAll(data, 0o700); err != nil {
		return err
	}
	addrFile := filepath.Join(data, "addr")
	if err := forgetAddr(addrFile); err != nil { // of a server that was killed
		return err
	}
	key, err := devInstanceKey(filepath.Join(data, "instance.key"))
	if err != nil {
		return err
	}
	c := devConfig(host, listen, data)
	s, err := server.New(ctx, c, key, server.Logger(cmd.ErrOrStderr(), c.Log), server.Options{Version: Version()})
	if err != nil {
		return err
	}
	tokenFile, err := devAdminToken(ctx, s.Store, data)
	if err != nil {
		return closing(s, err)
	}
	err = s.Run(ctx, func(addr string) {
		addr = "http://" + addr
		if err := writeAddr(addrFile, addr); err != nil {
			warn(cmd.ErrOrStderr(), "no address for scripts: %v", err)
		}
		welcome(ctx, cmd, addr, tokenFile)
	})
	return errors.Join(closing(s, err), forgetAddr(addrFile))
}

func devConfig(host, listen, data string) config.Config {
	c := config.Default()
	c.Listen, c.PrivateListen = listen, net.JoinHostPort(host, "0")
	c.Database = config.Database{SQLite: filepath.Join(data, "zonemint.db"), Migrate: true}
	c.Log = config.Log{Level: "warn", Format: "text"}
	// Verifiers are on this machine and somebody watches: a rotation takes
	// seconds, of which the lease is the longest part.
	c.LeaseTTL, c.JWKSMaxAge, c.JWKSStaleIfError, c.ClockSkew = 10*time.Second, 5*time.Second, 0, 5*time.Second
	c.Keysets = []config.Keyset{
		{Name: "zone", Profile: "zone"}, {Name: "user", Profile: "user"}, {Name: "dataplane/default", Profile: "dataplane"},
	}
	return c
}

func forgetAddr(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// writeAddr writes the server's address where scripts can wait for it. They
// never see half of it.
func writeAddr(path, addr string) error {
	if err := os.WriteFile(path+".new", []byte(addr+"\n"), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func devInstanceKey(path string) (*instancekey.Key, error) {
	key, err := instancekey.ReadFile(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if key, err = instancekey.Generate(); err != nil {
		return nil, err
	}
	return key, key.WriteFile(path)
}

// devAdminToken returns the file with the administrator's token. If there is one
// that the database accepts it is kept, so that what was exported in another
// shell goes on working.
func devAdminToken(ctx context.Context, db *store.DB, data string) (string, error) {
	path := filepath.Join(data, "admin.token")
	if text, err := os.ReadFile(path); err == nil {
		auth := caller.Authenticator{Store: db, Now: time.Now}
		if _, err := auth.Authenticate(ctx, "Bearer "+strings.TrimSpace(string(text)), false); err == nil {
			return path, nil
		}
		if err := os.Remove(path); err != nil {
			return "", err
		}
	}
	text, _, err := createAdmin(ctx, db, "dev-admin", 365*24*time.Hour)
	if err != nil {
		return "", err
	}
	f, err := newFile(path)
	if err != nil {
		return "", err
	}
	_, err = f.WriteString(text + "\n")
	return path, closing(f, err)
}
