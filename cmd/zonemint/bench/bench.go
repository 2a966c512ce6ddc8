// Package bench measures zonemint against the raw rate of the same key on the
// same machine in the same run. Absolute rates depend on the machine and on what
// else it does; the ratios are what can be compared.
package bench

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/google/uuid"

	"github.com/zonemint/zonemint/cmd/zonemint/config"
	"github.com/zonemint/zonemint/cmd/zonemint/server"
	"github.com/zonemint/zonemint/instancekey"
	"github.com/zonemint/zonemint/service/caller"
	"github.com/zonemint/zonemint/service/ledger"
	"github.com/zonemint/zonemint/store"
)

// Options say what to measure.
type Options struct {
	Duration    time.Duration // of each measurement
	Connections []int
	Stores      []string // "sqlite", "postgres"
	Algorithms  []string // "RS256", "ES256"
	Postgres    string   // a database to use, "" for none
	Tokens      int      // how many to issue for the memory figures, 0 for none
	Revocations int      // how many to time on their way to a verifier, 0 for none
	// LedgerRows and OldSerials are what a database has that is compared with an
	// empty one; 0 rows for no comparison.
	LedgerRows int
	OldSerials int
	Progress   io.Writer
}

// Result is one measurement.
type Result struct {
	Name        string  `json:"name"`
	Store       string  `json:"store,omitempty"`
	Algorithm   string  `json:"algorithm,omitempty"`
	Ledger      string  `json:"ledger,omitempty"`
	Connections int     `json:"connections,omitempty"`
	Client      string  `json:"client,omitempty"`
	PerSecond   float64 `json:"per_second,omitempty"`
	P50         float64 `json:"p50_ms,omitempty"`
	P99         float64 `json:"p99_ms,omitempty"`
	OfRaw       float64 `json:"of_raw,omitempty"`
	Note        string  `json:"note,omitempty"`
}

// keysets are what is measured with: one for each algorithm.
func keysets() []config.Keyset {
	return []config.Keyset{
		{Name: "rs256", Profile: "zone", Algorithm: "RS256"},
		{Name: "es256", Profile: "zone", Algorithm: "ES256"},
	}
}

// target is a server under measurement.
type target struct {
	store  string
	ledger string
	base   string
	token  string
	path   string // of the SQLite database
	stop   func() error
}

// discard stands in for the ledger, to show what the ledger costs. Tokens of a
// server with it are recorded nowhere; only the benchmark can make one.
type discard struct{}

func (discard) Record(_ context.Context, at store.Link, _ []store.Issuance) (store.Link, store.Refused, error) {
	return at, store.Refused{}, nil
}

// start runs a server on a fresh database of its own.
func start(ctx context.Context, dir string, db config.Database, recorder ledger.Store) (*target, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if db.SQLite != "" {
		db.SQLite = filepath.Join(dir, uuid.NewString()+".db")
	}
	c := config.Default()
	c.Listen, c.PrivateListen, c.Database, c.Keysets = "127.0.0.1:0", "127.0.0.1:0", db, keysets()
	key, err := keyIn(dir)
	if err != nil {
		return nil, err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	s, err := server.New(ctx, c, key, log, server.Options{Version: "bench", Recorder: recorder})
	if err != nil {
		return nil, err
	}
	text, _, err := caller.Create(ctx, s.Store, store.APIToken{Name: "bench", Roles: []string{
		string(caller.Issuer), string(caller.Revoker), string(caller.Verifier),
	}},
		24*time.Hour, store.Actor{Name: "bench"})
	if err != nil {
		return nil, err
	}
	t, err := run(ctx, s, text)
	if err == nil {
		t.path = db.SQLite
	}
	return t, err
}

func run(ctx context.Context, s *server.Server, token string) (*target, error) {
	ctx, cancel := context.WithCancel(ctx)
	up, done := make(chan string, 1), make(chan error, 1)
	go func() { done <- s.Run(ctx, func(addr string) { up <- addr }) }()
	stop := func() error {
		cancel()
		err := <-done
		if cerr := s.Close(); err == nil {
			err = cerr
		}
		return err
	}
	select {
	case addr := <-up:
		return &target{base: "http://" + addr, token: token, stop: stop}, nil
	case err := <-done:
		cancel()
		return nil, fmt.Errorf("server under measurement: %w", err)
	}
}

// keyIn returns the instance key of all servers of a run: a Postgres database
// is bound to the first one it sees.
func keyIn(dir string) (*instancekey.Key, error) {
	path := filepath.Join(dir, "instance.key")
	if _, err := os.Stat(path); err == nil {
		return instancekey.ReadFile(path)
	}
	key, err := instancekey.Generate()
	if err != nil {
		return nil, err
	}
	return key, key.WriteFile(path)
}

// Run measures everything and calls emit with each result as it comes.
func Run(ctx context.Context, opts Options, emit func(Result)) error {
	dir, err := os.MkdirTemp("", "zonemint-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	return (&session{Options: opts, dir: dir, emit: emit}).all(ctx)
}
