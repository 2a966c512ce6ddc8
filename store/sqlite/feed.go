package sqlite

import (
	"context"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/zonemint/zonemint/store"
	"github.com/zonemint/zonemint/store/sqlite/dbsqlc"
)

// Incarnation implements [store.Tx].
func (t *tx) Incarnation(ctx context.Context) (string, error) { return t.copy, interpret(ctx.Err()) }

func (t *tx) SetIncarnation(ctx context.Context, was, is string) error {
	return changed(t.q.SetIncarnation(ctx, dbsqlc.SetIncarnationParams{Was: was, Incarnation: is}))
}

func (t *tx) Feed(ctx context.Context, keyset uuid.UUID) (store.Feed, error) {
	row, err := t.q.GetRevocationFeed(ctx, keyset.String())
	return toFeed(row), interpret(err)
}

func (t *tx) Feeds(ctx context.Context) ([]store.Feed, error) {
	rows, err := t.q.ListRevocationFeeds(ctx)
	return mapRows(rows, toFeed), interpret(err)
}

// LockFeed implements [store.Tx]. Writers take turns anyway.
func (t *tx) LockFeed(ctx context.Context, keyset uuid.UUID) (store.Feed, error) {
	return t.Feed(ctx, keyset)
}

func toFeed(r dbsqlc.RevocationFeed) store.Feed {
	return store.Feed{
		KeysetID: id(r.KeysetID), FeedPosition: store.FeedPosition{Epoch: id(r.Epoch), Seq: r.LastSeq}, Horizon: r.Horizon,
	}
}

func (t *tx) AdvanceFeed(ctx context.Context, keyset uuid.UUID, seq int64) error {
	return interpret(t.q.AdvanceRevocationFeed(ctx, dbsqlc.AdvanceRevocationFeedParams{KeysetID: keyset.String(), LastSeq: seq}))
}

func (t *tx) RenewFeeds(ctx context.Context) error {
	feeds, err := t.q.ListRevocationFeeds(ctx)
	if err != nil {
		return interpret(err)
	}
	for _, f := range feeds {
		err := t.q.SetFeedEpoch(ctx, dbsqlc.SetFeedEpochParams{Epoch: uuid.NewString(), KeysetID: f.KeysetID})
		if err != nil {
			return interpret(err)
		}
	}
	return nil
}

// forgetRevocations deletes revocations whose tokens expired before a moment, feed
// by feed and in short transactions.
func (e *Engine) forgetRevocations(ctx context.Context, before time.Time, m *store.Maintained) error {
	feeds, err := dbsqlc.New(e.read).ListRevocationFeeds(ctx)
	if err != nil {
		return err
	}
	for _, feed := range feeds {
		for more := true; more; {
			rows, err := e.pruneFeed(ctx, feed.KeysetID, before)
			if err != nil {
				return err
			}
			m.RevocationsForgotten += int64(rows)
			more = rows == pruneStep
		}
	}
	return nil
}

func (e *Engine) pruneFeed(ctx context.Context, keyset string, before time.Time) (rows int, err error) {
	t, err := e.write.BeginTx(ctx, nil)
	if err != nil {
		return 0, err
	}
	defer func() {
		if err != nil {
			_ = t.Rollback() // nothing to add to err
		}
	}()
	q := dbsqlc.New(t)
	gone, err := q.PruneRevocations(ctx, dbsqlc.PruneRevocationsParams{
		KeysetID: keyset, ExpiredBefore: before.UnixMicro(), MaxRows: pruneStep,
	})
	if err != nil {
		return 0, err
	}
	if len(gone) > 0 {
		last := slices.Max(gone)
		if err := q.RaiseFeedHorizon(ctx, dbsqlc.RaiseFeedHorizonParams{KeysetID: keyset, Gone: last}); err != nil {
			return 0, err
		}
	}
	return len(gone), t.Commit()
}
