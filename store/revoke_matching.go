package store

import (
	"context"
	"fmt"
	"maps"
	"time"

	"github.com/google/uuid"
)

// revokeStep is how many tokens one transaction of RevokeMatching revokes at most.
// Whoever revokes a single one waits for so many.
const revokeStep = 20_000

// RevokeMatching revokes every token whose row in the ledger matches and that did
// not expire longer than [Leeway] ago, and every one that matches and is being
// issued at this moment. It returns how many match and for how many of them that
// changed something. With expected another number than that fails it with
// [ErrUnexpectedCount]: nothing is revoked, and matched is returned. ErrNotFound if
// there is no such keyset.
//
// What is issued from now on is not revoked: the filter ends at this moment. A
// token is counted by its stamp, so that one which a replica whose clock is
// slightly ahead has made just now counts as issued afterwards.
//
// It works in parts, oldest tokens first, each in a transaction with its audit
// event, and expected is checked before the first one. If it fails or dies in
// between, what it has revoked so far stays revoked, revoked says how many those
// are, and the audit lacks the event of the last part, whose detail has done. To
// call it again with the same filter is safe and revokes the rest; matched counts
// what is revoked already too.
//
// Without a keyset the filter concerns all, and without IssuedAfter the whole
// ledger is read; a time prunes it to the partitions of that time.
func (d *DB) RevokeMatching(ctx context.Context, f LedgerFilter, expected *int64, reason string, by Actor) (matched, revoked int64, err error) {
	if err := f.check(); err != nil {
		return 0, 0, fmt.Errorf("revoking by the ledger: %w", err)
	}
	if err := checkText(reason); err != nil {
		return 0, 0, fmt.Errorf("revoking by the ledger: %w", err)
	}
	if f.IssuedBefore, err = d.stopInFlight(ctx, f, reason, by); err != nil {
		return 0, 0, fmt.Errorf("stopping what is being issued: %w", err)
	}
	// Dying here leaves a barrier, which does no harm: what was being issued was
	// made again with a new stamp.
	if matched, err = d.CountMatching(ctx, f); err != nil {
		return 0, 0, fmt.Errorf("revoking by the ledger: %w", err)
	}
	if expected != nil && matched != *expected {
		return matched, 0, fmt.Errorf("revoking by the ledger: %d match, expected were %d: %w", matched, *expected, ErrUnexpectedCount)
	}
	f.Live, f.Acceptable = false, true
	all := matchingRun{filter: f, detail: map[string]any{"filter": f.describe(), "matched": matched, "reason": reason}}
	for part, done := 1, false; !done; part++ {
		var n int64
		if n, done, err = d.revokePart(ctx, &all, part, reason, by); err != nil {
			return matched, revoked, fmt.Errorf("revoking by the ledger, part %d: %w", part, err)
		}
		revoked += n
	}
	return matched, revoked, nil
}

// matchingRun is a revocation by the ledger that goes on.
type matchingRun struct {
	filter LedgerFilter   // FromJTI is where the next part begins
	detail map[string]any // of each audit event
}

// revokePart revokes the next tokens of a run.
func (d *DB) revokePart(ctx context.Context, all *matchingRun, part int, reason string, by Actor) (revoked int64, done bool, err error) {
	f := all.filter
	// Apart, while nothing is locked: those who wait for the feeds have their turn.
	err = d.engine.View(ctx, func(tx Tx) (err error) {
		f.ToJTI, err = tx.JTIAt(ctx, f, revokeStep)
		return err
	})
	if err != nil {
		return 0, false, err
	}
	done = f.ToJTI == uuid.Max
	err = d.changeFeeds(ctx, by, func(tx Tx, now time.Time) (_ deed, err error) {
		revoked, err = tx.RevokeIssuances(ctx, f, Revocation{RevokedAt: now, Reason: reason, Caller: by.Name})
		if err != nil {
			return deed{}, err
		}
		target, err := f.target(ctx, tx)
		detail := maps.Clone(all.detail)
		detail["part"], detail["revoked"], detail["done"] = part, revoked, done
		return deed{"revocation.create-matching", target, detail}, err
	})
	if err != nil {
		return 0, false, err
	}
	all.filter.FromJTI = f.ToJTI
	return revoked, done, nil
}

// stopInFlight has the ledger refuse tokens that were stamped before this moment,
// or before f.IssuedBefore if that is earlier, and are not recorded yet, and
// returns that moment. Their replicas make them again, with a new stamp. Once it
// returns, every token from before is in the ledger or will never be given out.
//
// It is a short transaction of its own because it closes the gates of the keysets:
// no replica issues from them until it ends. It has an audit event of its own,
// since it stays when what follows fails.
func (d *DB) stopInFlight(ctx context.Context, f LedgerFilter, reason string, by Actor) (barrier time.Time, err error) {
	err = d.engine.Update(ctx, func(tx Tx) error {
		if f.KeysetID != uuid.Nil {
			if _, err := tx.Feed(ctx, f.KeysetID); err != nil { // no such keyset
				return err
			}
		}
		target, err := f.target(ctx, tx)
		if err != nil {
			return err
		}
		if barrier, err = tx.RaiseIssueBarrier(ctx, f.KeysetID, f.IssuedBefore); err != nil {
			return err
		}
		now, err := tx.Now(ctx)
		if err != nil {
			return err
		}
		if err := mayAct(ctx, tx, by); err != nil {
			return err
		}
		f.IssuedBefore = barrier
		done := deed{"revocation.barrier", target, map[string]any{"filter": f.describe(), "reason": reason}}
		return audit(ctx, tx, by, []deed{done}, now)
	})
	return barrier, err
}

// CountMatching returns how many tokens a [DB.RevokeMatching] of the filter would
// find, not counting what is being issued. Like that it counts those that expired
// no longer than [Leeway] ago, whatever f.Live says.
func (d *DB) CountMatching(ctx context.Context, f LedgerFilter) (n int64, err error) {
	if err := f.check(); err != nil {
		return 0, err
	}
	f.Live, f.Acceptable = false, true
	err = d.engine.View(ctx, func(tx Tx) (err error) {
		n, err = tx.CountIssuances(ctx, f)
		return err
	})
	return n, err
}
