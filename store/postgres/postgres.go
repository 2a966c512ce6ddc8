// Package postgres is the store's engine on PostgreSQL 14 or later.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"github.com/zonemint/zonemint/migrations"
	"github.com/zonemint/zonemint/store"
	"github.com/zonemint/zonemint/store/postgres/dbsqlc"
)

// Options are the optional settings of [Open].
type Options struct {
	// MaxConns bounds the connections; 0 is what pool_max_conns in the URL says,
	// or 8. Issuing uses one at a time,
	// whatever the load.
	MaxConns int32
}

// Engine implements [store.Engine]. It is safe for concurrent use.
type Engine struct {
	pool *pgxpool.Pool
	// vital is for the ledger and the lease alone: however many requests wait
	// for the other connections, or for a server that has gone silent on them,
	// a replica goes on signing, and notices when it cannot.
	vital *pgxpool.Pool
	// watch makes the connection that listens, which belongs to neither pool: it
	// is held for as long as the process runs.
	watch *pgx.ConnConfig

	mu     sync.Mutex
	raised map[uuid.UUID]time.Time // what last_expiry is known to be at least
}

var _ store.Engine = (*Engine)(nil)

// Open connects to the database at url (a "postgres://" URL or keyword=value
// text, see libpq). It fails if the server is too old or would acknowledge
// commits before they are durable.
func Open(ctx context.Context, url string, opts Options) (*Engine, error) {
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		// The parser's own error holds the URL, and so a password.
		return nil, errors.New("postgres: the database URL cannot be parsed")
	}
	switch {
	case opts.MaxConns != 0:
		cfg.MaxConns = max(opts.MaxConns, 2)
	case !strings.Contains(url, "pool_max_conns"):
		cfg.MaxConns = 8
	}
	cfg.AfterConnect = checkDurability
	for name, value := range runtimeParams() {
		if _, set := cfg.ConnConfig.RuntimeParams[name]; !set {
			cfg.ConnConfig.RuntimeParams[name] = value
		}
	}
	pool, err := connect(ctx, cfg)
	if err != nil {
		return nil, err
	}
	vital := cfg.Copy()
	vital.MaxConns = vitalConns
	e := &Engine{pool: pool, watch: watchConfig(cfg.ConnConfig), raised: map[uuid.UUID]time.Time{}}
	if e.vital, err = connect(ctx, vital); err != nil {
		pool.Close()
		return nil, err
	}
	return e, nil
}

// vitalConns is one for the ledger's transaction, which there is one of at a
// time, one for the heartbeat, and one for what is being given up.
const vitalConns = 3

func connect(ctx context.Context, cfg *pgxpool.Config) (*pgxpool.Pool, error) {
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("postgres: %w", interpret(err))
	}
	if err := pool.Ping(ctx); err != nil {
		pool.Close()
		return nil, fmt.Errorf("postgres: connecting: %w", interpret(err))
	}
	return pool, nil
}

// runtimeParams are settings of each connection that the URL may override. A
// process that freezes in the middle of an administrative act holds the gate of
// its keyset; the server ends such a transaction before anybody gives up waiting.
func runtimeParams() map[string]string {
	return map[string]string{"application_name": "zonemint", "idle_in_transaction_session_timeout": "3s"}
}

// checkDurability refuses a connection on which a commit may be acknowledged
// and then lost. It runs on every new connection, since the settings can be
// changed for a role, a database or the server while zonemint runs.
func checkDurability(ctx context.Context, conn *pgx.Conn) error {
	var version int
	var syncCommit, fsync, recovery string
	err := conn.QueryRow(ctx, `SELECT current_setting('server_version_num')::int, current_setting('synchronous_commit'),
		current_setting('fsync'), pg_is_in_recovery()::text`).Scan(&version, &syncCommit, &fsync, &recovery)
	switch {
	case err != nil:
		return err
	case version < 140000:
		return fmt.Errorf("PostgreSQL 14 or later is needed, this is %d", version/10000)
	case syncCommit == "off":
		return errors.New("synchronous_commit is off: a token could be given out and its ledger row lost; " +
			"set it to on for this role or database")
	case fsync == "off":
		return errors.New("fsync is off: the ledger would not survive a crash of the machine")
	case recovery == "true":
		return errors.New("the server is a standby and takes no writes")
	}
	// What was checked is made the session's own, so that a reload of the
	// server's settings cannot change it under an open connection.
	_, err = conn.Exec(ctx, `SELECT set_config('synchronous_commit', $1, false)`, syncCommit)
	return err
}

// Migrate brings the schema up to date and returns the names of the migrations
// that were applied. Several replicas may call it at once: an advisory lock
// lets one work and the others wait.
func (e *Engine) Migrate(ctx context.Context) ([]string, error) {
	provider, err := e.provider()
	if err != nil {
		return nil, err
	}
	results, err := provider.Up(ctx)
	var applied []string
	for _, r := range results {
		applied = append(applied, r.Source.Path)
	}
	if err != nil {
		return applied, fmt.Errorf("postgres: migrating: %w", interpret(err))
	}
	_, err = e.Maintain(ctx, forever)
	return applied, err
}

// Pending returns the names of the migrations that are yet to be applied.
func (e *Engine) Pending(ctx context.Context) ([]string, error) {
	provider, err := e.provider()
	if err != nil {
		return nil, err
	}
	status, err := provider.Status(ctx)
	if err != nil {
		return nil, fmt.Errorf("postgres: reading the schema's version: %w", interpret(err))
	}
	var pending []string
	for _, s := range status {
		if s.State == goose.StatePending {
			pending = append(pending, s.Source.Path)
		}
	}
	return pending, nil
}

func (e *Engine) provider() (*goose.Provider, error) {
	files, err := fs.Sub(migrations.Postgres, "postgres")
	if err != nil {
		return nil, err
	}
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, 300)) // asks every second, for 5 minutes
	if err != nil {
		return nil, err
	}
	return goose.NewProvider(goose.DialectPostgres, stdlib.OpenDBFromPool(e.pool), files, goose.WithSessionLocker(locker))
}

// Close ends all connections. It waits for transactions that are under way.
func (e *Engine) Close() error {
	e.pool.Close()
	e.vital.Close()
	return nil
}

// Linger returns zero: while one commit waits for the disk the next group
// gathers anyway, and waiting longer only adds latency.
func (e *Engine) Linger() time.Duration { return 0 }

// Update implements [store.Engine].
func (e *Engine) Update(ctx context.Context, fn func(store.Tx) error) error {
	return e.inTx(ctx, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, fn)
}

// View implements [store.Engine].
func (e *Engine) View(ctx context.Context, fn func(store.Tx) error) error {
	return e.inTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, fn)
}

func (e *Engine) inTx(ctx context.Context, opts pgx.TxOptions, fn func(store.Tx) error) error {
	t, err := e.pool.BeginTx(ctx, opts)
	if err != nil {
		return interpret(err)
	}
	if err := fn(tx{dbsqlc.New(t), t}); err != nil {
		// The connection is closed if this fails, which rolls back as well.
		_ = t.Rollback(context.WithoutCancel(ctx))
		return err
	}
	err = t.Commit(ctx)
	if opts.AccessMode == pgx.ReadOnly {
		return interpret(err)
	}
	return afterSend(err)
}

// Heartbeat implements [store.Engine].
func (e *Engine) Heartbeat(ctx context.Context, r store.Replica, ttl time.Duration) (store.Beat, error) {
	row, err := dbsqlc.New(e.vital).Heartbeat(ctx, dbsqlc.HeartbeatParams{
		ID: r.ID, Name: r.Name, Version: r.Version, Seconds: ttl.Seconds(),
		Generation: r.Generation, ClockOffsetUs: r.ClockOffset.Microseconds(),
		LeaseUs: r.LeaseTTL.Microseconds(), CacheUs: r.CacheFor.Microseconds(),
	})
	if err != nil {
		return store.Beat{}, interpret(err)
	}
	return store.Beat{Now: row.Now.UTC(), Generation: row.Generation}, nil
}

// Leave implements [store.Engine].
func (e *Engine) Leave(ctx context.Context, replica uuid.UUID) error {
	return interpret(dbsqlc.New(e.vital).Leave(ctx, replica))
}
