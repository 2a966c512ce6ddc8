package store

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/google/uuid"
)

// Feed is the head of a keyset's revocation feed. Every change of a revocation
// takes the next Seq, under the lock of the feed's row, which is held until the
// change is committed: whoever has read up to a Seq has read all before it.
type Feed struct {
	KeysetID uuid.UUID
	FeedPosition
	// Horizon is a position up to which nothing is left: what was there was
	// superseded, or expired and was forgotten.
	Horizon int64
}

// FeedPosition is how far a reader of a keyset's feed has read. The zero
// position begins.
type FeedPosition struct {
	Epoch uuid.UUID
	Seq   int64
}

// FeedPage is what follows a position in a keyset's feed.
type FeedPage struct {
	Epoch   uuid.UUID
	Seq     int64 // where the next page begins
	Reset   bool  // the reader forgets what it has: the page is from the beginning
	More    bool  // another page is there already
	Entries []Revocation
}

// RevocationGrace is how long a revocation stays in the feed after its token has
// expired: the most by which a reader's clock may be behind the database's, with
// the [Leeway] that it allows.
const RevocationGrace = time.Hour

// lost says whether a reader at a position has to begin anew: it has read another
// history, or more than there is (the database is an older one that was restored),
// or it comes from so far back that nothing is left of what it has.
//
// Otherwise the rows after its position are all it needs. A row is there once, at
// its last change; what was forgotten had expired, and its reader drops what has
// expired by itself, since a revocation's expiry is never lowered.
func (f Feed) lost(at FeedPosition) bool {
	return at.Epoch != f.Epoch || at.Seq > f.Seq || 0 < at.Seq && at.Seq < f.Horizon
}

// RevocationFeed returns what has changed in a keyset's feed since a position, by
// Seq, at most limit entries: revocations that hold, and those that were lifted,
// which have LiftedAt. Of a token that expired longer than [RevocationGrace] ago
// nothing is said, and after a reset nothing of what was lifted before. ErrNotFound
// if there is no such keyset.
func (d *DB) RevocationFeed(ctx context.Context, keyset uuid.UUID, from FeedPosition, limit int) (page FeedPage, err error) {
	limit = min(max(limit, 1), math.MaxInt32-1)
	err = d.engine.View(ctx, func(tx Tx) error {
		feed, err := tx.Feed(ctx, keyset)
		if err != nil {
			return err
		}
		page = FeedPage{Epoch: feed.Epoch, Seq: feed.Seq, Reset: feed.lost(from)}
		if page.Reset {
			from.Seq = 0
		}
		page.Entries, err = tx.RevocationsAfter(ctx, keyset, from.Seq, !page.Reset, limit+1)
		if page.More = len(page.Entries) > limit; page.More {
			page.Entries = page.Entries[:limit]
			page.Seq = page.Entries[limit-1].Seq
		}
		return err
	})
	return page, err
}

// FeedHeads returns the position of the last change of every feed, by keyset.
func (d *DB) FeedHeads(ctx context.Context) (map[uuid.UUID]FeedPosition, error) {
	heads := map[uuid.UUID]FeedPosition{}
	err := d.engine.View(ctx, func(tx Tx) error {
		feeds, err := tx.Feeds(ctx)
		for _, f := range feeds {
			heads[f.KeysetID] = f.FeedPosition
		}
		return err
	})
	return heads, err
}

// changeFeeds runs an act that changes revocations, and its audit event, in one
// transaction, and tells those who watch once it is committed.
//
// Unlike in [DB.act] the caller is checked at the end. The check holds off a
// revocation of the caller's API token, and that in turn the batches of every
// replica that have the token in them, which must not wait for a long act.
func (d *DB) changeFeeds(ctx context.Context, by Actor, fn func(tx Tx, now time.Time) (deed, error)) error {
	return d.engine.Update(ctx, func(tx Tx) error {
		// The server that this transaction runs on may be a standby that has just
		// been promoted, behind the back of this process.
		if err := renewFeeds(ctx, tx); err != nil {
			return err
		}
		now, err := tx.Now(ctx)
		if err != nil {
			return err
		}
		done, err := fn(tx, now)
		if err != nil {
			return err
		}
		if err := mayAct(ctx, tx, by); err != nil || done.action == "" {
			return err
		}
		if err := tx.Notify(ctx, TopicRevocations); err != nil {
			return err
		}
		return audit(ctx, tx, by, []deed{done}, now)
	})
}

// renewFeeds begins new epochs, and a new range of generations, if the database is
// another copy of the data than they belong to. It only reads if it is the same, as it nearly always is.
func (d *DB) renewFeeds(ctx context.Context) error {
	var same bool
	err := d.engine.View(ctx, func(tx Tx) (err error) {
		_, _, same, err = incarnations(ctx, tx)
		return err
	})
	if err != nil || same {
		return err
	}
	return d.engine.Update(ctx, func(tx Tx) error { return renewFeeds(ctx, tx) })
}

// renewFeeds does so within a transaction. In another copy, changes that readers
// have seen may be missing, and their numbers be given out again; with a new epoch
// everybody begins anew. Since it comes before any change in the same transaction,
// no number is given out twice in an epoch.
//
// Of several replicas that notice at once the first one writes. The others wait
// for it, and find the row changed.
func renewFeeds(ctx context.Context, tx Tx) error {
	was, is, same, err := incarnations(ctx, tx)
	if err != nil || same {
		return err
	}
	if err := tx.SetIncarnation(ctx, was, is); errors.Is(err, ErrConflict) {
		return nil
	} else if err != nil || was == "" {
		return err
	}
	if err := tx.RenewFeeds(ctx); err != nil {
		return err
	}
	// Generations would be given out twice as well, and a replica take a ring that
	// it has loaded from the other copy for the one that is here.
	if err := tx.LeapGeneration(ctx); err != nil {
		return err
	}
	for _, topic := range Topics() {
		if err := tx.Notify(ctx, topic); err != nil {
			return err
		}
	}
	now, err := tx.Now(ctx)
	if err != nil {
		return err
	}
	done := deed{"revocation-feed.new-epoch", "*", map[string]any{"was": was, "is": is}}
	return audit(ctx, tx, Actor{Name: "replica/store"}, []deed{done}, now)
}

// incarnations returns which copy of the data the epochs belong to, and which one
// this is.
func incarnations(ctx context.Context, tx Tx) (was, is string, same bool, err error) {
	in, err := tx.Installation(ctx)
	if err != nil {
		return "", "", false, err
	}
	is, err = tx.Incarnation(ctx)
	return in.Incarnation, is, in.Incarnation == is, err
}
