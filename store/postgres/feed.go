package postgres

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/zonemint/zonemint/store"
	"github.com/zonemint/zonemint/store/postgres/dbsqlc"
)

// incarnationParts are what tells this copy of the data from others. A restored
// cluster and a promoted standby are on another timeline, a cluster that was
// loaded with a dump has another identifier, a database that was copied within
// its cluster another OID, and so has the table if a dump was loaded into the
// database in its place. A dump of the rows alone, and a snapshot of the disk that
// a server is started from as if it had crashed, cannot be told.
func incarnationParts() []string {
	return []string{
		`(SELECT system_identifier::text FROM pg_control_system())`,
		`(SELECT left(pg_walfile_name(pg_current_wal_lsn()), 8))`,
		`(SELECT oid::text FROM pg_database WHERE datname = current_database())`,
		`'installation'::regclass::oid::text`,
	}
}

// Incarnation implements [store.Tx]. A managed service may keep some of its parts
// to itself; they are left empty then.
func (t tx) Incarnation(ctx context.Context) (string, error) {
	parts := incarnationParts()
	whole, err := t.ask(ctx, strings.Join(parts, ` || '/' || `))
	if err == nil || errors.Is(err, store.ErrUnavailable) {
		return whole, err
	}
	for i, part := range parts {
		if parts[i], err = t.ask(ctx, part); errors.Is(err, store.ErrUnavailable) {
			return "", err
		}
	}
	return strings.Join(parts, "/"), nil
}

// ask evaluates an expression under a savepoint, since a statement that fails
// would end the transaction.
func (t tx) ask(ctx context.Context, expression string) (answer string, err error) {
	err = pgx.BeginFunc(ctx, t.t, func(sp pgx.Tx) error {
		return sp.QueryRow(ctx, "SELECT "+expression).Scan(&answer)
	})
	return answer, interpret(err)
}

func (t tx) SetIncarnation(ctx context.Context, was, is string) error {
	return changed(t.q.SetIncarnation(ctx, dbsqlc.SetIncarnationParams{Was: was, Incarnation: is}))
}

func (t tx) Feed(ctx context.Context, keyset uuid.UUID) (store.Feed, error) {
	row, err := t.q.GetRevocationFeed(ctx, keyset)
	return toFeed(row), interpret(err)
}

func (t tx) Feeds(ctx context.Context) ([]store.Feed, error) {
	rows, err := t.q.ListRevocationFeeds(ctx)
	return mapRows(rows, toFeed), interpret(err)
}

func (t tx) LockFeed(ctx context.Context, keyset uuid.UUID) (store.Feed, error) {
	row, err := t.q.LockRevocationFeed(ctx, keyset)
	return toFeed(row), interpret(err)
}

func toFeed(r dbsqlc.RevocationFeed) store.Feed {
	return store.Feed{
		KeysetID: r.KeysetID, FeedPosition: store.FeedPosition{Epoch: r.Epoch, Seq: r.LastSeq}, Horizon: r.Horizon,
	}
}

func (t tx) AdvanceFeed(ctx context.Context, keyset uuid.UUID, seq int64) error {
	return interpret(t.q.AdvanceRevocationFeed(ctx, dbsqlc.AdvanceRevocationFeedParams{KeysetID: keyset, LastSeq: seq}))
}

func (t tx) RenewFeeds(ctx context.Context) error { return interpret(t.q.RenewRevocationFeeds(ctx)) }

// forgetRevocations deletes revocations whose tokens expired before a moment, feed
// by feed and in steps, each under the lock of its feed.
func (e *Engine) forgetRevocations(ctx context.Context, before time.Time, m *store.Maintained) error {
	feeds, err := dbsqlc.New(e.pool).ListRevocationFeeds(ctx)
	if err != nil {
		return err
	}
	for _, feed := range feeds {
		for more := true; more; {
			var gone dbsqlc.PruneRevocationsRow
			err := e.maintain(ctx, func(t pgx.Tx) (err error) {
				gone, err = pruneFeed(ctx, dbsqlc.New(t), feed.KeysetID, before)
				return err
			})
			if err != nil {
				return err
			}
			m.RevocationsForgotten += gone.Rows
			more = gone.Rows == pruneStep
		}
	}
	return nil
}

func pruneFeed(ctx context.Context, q *dbsqlc.Queries, keyset uuid.UUID, before time.Time) (gone dbsqlc.PruneRevocationsRow, err error) {
	if _, err := q.LockRevocationFeed(ctx, keyset); err != nil {
		return gone, err
	}
	gone, err = q.PruneRevocations(ctx, dbsqlc.PruneRevocationsParams{
		KeysetID: keyset, ExpiredBefore: before, MaxRows: pruneStep,
	})
	if err != nil || gone.Rows == 0 {
		return gone, err
	}
	return gone, q.RaiseFeedHorizon(ctx, dbsqlc.RaiseFeedHorizonParams{KeysetID: keyset, Gone: gone.Last})
}
