// Package sqlite is the store's embedded engine, for one process on one
// machine. It is pure Go: a binary with it needs no cgo.
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/google/uuid"
	"github.com/pressly/goose/v3"

	"github.com/zonemint/zonemint/migrations"
	"github.com/zonemint/zonemint/store"
	"github.com/zonemint/zonemint/store/sqlite/dbsqlc"
)

// Options are the optional settings of [Open].
type Options struct {
	// Now is the database's clock, time.Now if it is nil: the process and its
	// embedded database share one.
	Now func() time.Time
}

// Engine implements [store.Engine]. It is safe for concurrent use. Writers take
// turns on one connection; readers have others and do not wait for them.
type Engine struct {
	write *sql.DB
	read  *sql.DB
	lock  *os.File
	copy  string      // which copy of the data this is, see sidecar
	fresh atomic.Bool // nothing has been said yet about who else is alive: nobody
	now   func() time.Time

	sidecar  *sidecar
	watchers watchers
}

var _ store.Engine = (*Engine)(nil)

const readers = 4

// Open opens or creates the database file at path. A lock on path + ".lock"
// keeps a second process out: it would have a second ring, and the two would
// not learn of each other's changes. path + ".id" tells a restored database from
// the one before; it does not belong into a backup.
func Open(ctx context.Context, path string, opts Options) (_ *Engine, err error) {
	e := &Engine{now: opts.Now}
	e.fresh.Store(true)
	if e.now == nil {
		e.now = time.Now
	}
	defer func() {
		if err != nil {
			_ = e.closeAll()
		}
	}()
	if e.lock, err = lockFile(path + ".lock"); err != nil {
		return nil, err
	}
	if err = create(path); err != nil {
		return nil, err
	}
	if e.write, err = connect(ctx, path, "immediate", 1); err != nil {
		return nil, err
	}
	if e.read, err = connect(ctx, path, "deferred", readers, "query_only(ON)"); err != nil {
		return nil, err
	}
	if err = e.identify(ctx, path); err != nil {
		return nil, err
	}
	return e, nil
}

// identify finds out which copy of the data this is.
func (e *Engine) identify(ctx context.Context, path string) error {
	n, err := progress(ctx, e.read)
	if err != nil {
		return fmt.Errorf("sqlite: opening %s: %w", path, err)
	}
	s, err := openSidecar(path+".id", n)
	if err != nil {
		return err
	}
	e.sidecar = s
	e.copy, err = copyID(path, s)
	return err
}

// create makes the file, if there is none, so that nobody but its owner can read
// it: it holds encrypted private keys. The files that SQLite puts beside it get
// the same mode.
func create(path string) error {
	f, err := os.OpenFile(filepath.Clean(path), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("sqlite: %w", err)
	}
	return f.Close()
}

// connect opens a pool of connections. WAL lets readers go on while one writes;
// with synchronous=FULL a commit is on the disk before it is acknowledged,
// which in WAL mode is not the default of every build.
func connect(ctx context.Context, path, lockMode string, conns int, more ...string) (*sql.DB, error) {
	q := url.Values{"_txlock": {lockMode}, "_pragma": append([]string{
		"busy_timeout(5000)", "journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(ON)", "trusted_schema(OFF)",
	}, more...)}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Opaque: url.PathEscape(path), RawQuery: q.Encode()}).String())
	if err != nil {
		return nil, fmt.Errorf("sqlite: %w", err)
	}
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	if err := db.PingContext(ctx); err != nil {
		_ = db.Close()
		return nil, fmt.Errorf("sqlite: opening %s: %w", path, interpret(err))
	}
	return db, nil
}

func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Clean(path), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("sqlite: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("sqlite: another zonemint has this database open (%s is locked); "+
				"stop it first, or use Postgres to run several", path)
		}
		return nil, fmt.Errorf("sqlite: locking %s: %w", path, err)
	}
	return f, nil
}

// Migrate brings the schema up to date and returns the names of the migrations
// that were applied.
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
		return applied, fmt.Errorf("sqlite: migrating: %w", interpret(err))
	}
	return applied, nil
}

// Pending returns the names of the migrations that are yet to be applied.
func (e *Engine) Pending(ctx context.Context) ([]string, error) {
	provider, err := e.provider()
	if err != nil {
		return nil, err
	}
	status, err := provider.Status(ctx)
	if err != nil {
		return nil, fmt.Errorf("sqlite: reading the schema's version: %w", interpret(err))
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
	files, err := fs.Sub(migrations.SQLite, "sqlite")
	if err != nil {
		return nil, err
	}
	return goose.NewProvider(goose.DialectSQLite3, e.write, files)
}

// Close ends all connections.
func (e *Engine) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return errors.Join(e.remember(ctx), e.closeAll())
}

func (e *Engine) closeAll() error {
	var errs []error
	for _, db := range []*sql.DB{e.read, e.write} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	if e.lock != nil {
		errs = append(errs, e.lock.Close())
	}
	return errors.Join(errs...)
}

// Linger returns a millisecond: a commit here costs this process, and not a
// server, the wait for the disk, so under load it pays to share it more widely.
func (e *Engine) Linger() time.Duration { return 1 * time.Millisecond }

// Update implements [store.Engine].
func (e *Engine) Update(ctx context.Context, fn func(store.Tx) error) error {
	return e.inTx(ctx, e.write, fn)
}

// View implements [store.Engine].
func (e *Engine) View(ctx context.Context, fn func(store.Tx) error) error {
	return e.inTx(ctx, e.read, fn)
}

func (e *Engine) inTx(ctx context.Context, db *sql.DB, fn func(store.Tx) error) error {
	t, err := db.BeginTx(ctx, nil)
	if err != nil {
		return interpret(err)
	}
	x := &tx{q: dbsqlc.New(t), t: t, clock: e.clock, copy: e.copy}
	if err := fn(x); err != nil {
		_ = t.Rollback() // nothing to add to err
		return err
	}
	err = atCommit(t.Commit())
	if err == nil || errors.Is(err, store.ErrUnknownOutcome) {
		e.watchers.tell(x.told)
	}
	return err
}

// clock is the database's clock, to the microsecond.
func (e *Engine) clock() time.Time { return e.now().UTC().Truncate(time.Microsecond) }

// Heartbeat implements [store.Engine].
func (e *Engine) Heartbeat(ctx context.Context, r store.Replica, ttl time.Duration) (store.Beat, error) {
	now := e.clock()
	q := dbsqlc.New(e.write)
	if e.fresh.CompareAndSwap(true, false) {
		// Their leases need not run out: what they left undone is ours now.
		if err := q.EndAllReplicas(ctx, now.UnixMicro()); err != nil {
			e.fresh.Store(true)
			return store.Beat{}, interpret(err)
		}
	}
	err := q.Heartbeat(ctx, dbsqlc.HeartbeatParams{
		ID: r.ID.String(), Name: r.Name, Version: r.Version, StartedAt: now.UnixMicro(), LeaseUntil: now.Add(ttl).UnixMicro(),
		Generation: r.Generation, ClockOffsetUs: r.ClockOffset.Microseconds(),
		LeaseUs: r.LeaseTTL.Microseconds(), CacheUs: r.CacheFor.Microseconds(),
	})
	if err != nil {
		return store.Beat{}, interpret(err)
	}
	in, err := q.GetInstallation(ctx)
	return store.Beat{Now: now, Generation: in.Generation}, interpret(err)
}

// Leave implements [store.Engine].
func (e *Engine) Leave(ctx context.Context, replica uuid.UUID) error {
	return interpret(dbsqlc.New(e.write).Leave(ctx, dbsqlc.LeaveParams{Now: e.clock().UnixMicro(), ID: replica.String()}))
}
