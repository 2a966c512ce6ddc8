package store

import (
	"context"
	"fmt"
	"time"
)

// RevokeMatching revokes every live token whose row in the ledger matches, and
// every one that matches and is being issued at this moment; f.Live is implied.
// It returns how many match and for how many of them that changed something. With
// expected another number than that fails it with [ErrUnexpectedCount]: nothing is
// revoked, and matched is returned. ErrNotFound if there is no such keyset.
//
// What is issued from now on is not revoked: the filter ends at this moment. A
// token is counted by its stamp, so that one which a replica whose clock is
// slightly ahead has made just now counts as issued afterwards.
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
	if f.IssuedBefore, err = d.stopInFlight(ctx, f, by); err != nil {
		return 0, 0, fmt.Errorf("stopping what is being issued: %w", err)
	}
	// Dying here leaves a barrier, which does no harm: what was being issued was
	// made again with a new stamp.
	f.Live = true
	err = d.changeFeeds(ctx, by, func(tx Tx, now time.Time) (_ deed, err error) {
		if matched, err = tx.CountIssuances(ctx, f); err != nil {
			return deed{}, err
		}
		if expected != nil && matched != *expected {
			return deed{}, fmt.Errorf("%d match, expected were %d: %w", matched, *expected, ErrUnexpectedCount)
		}
		revoked, err = tx.RevokeIssuances(ctx, f, Revocation{RevokedAt: now, Reason: reason, Caller: by.Name})
		if err != nil {
			return deed{}, err
		}
		target, err := f.target(ctx, tx)
		detail := map[string]any{"filter": f.describe(), "matched": matched, "revoked": revoked, "reason": reason}
		return deed{"revocation.create-matching", target, detail}, err
	})
	if err != nil {
		return matched, 0, fmt.Errorf("revoking by the ledger: %w", err)
	}
	return matched, revoked, nil
}

// stopInFlight has the ledger refuse tokens that were stamped before this moment,
// or before f.IssuedBefore if that is earlier, and are not recorded yet, and
// returns that moment. Their replicas make them again, with a new stamp. Once it
// returns, every token from before is in the ledger or will never be given out.
//
// It is a short transaction of its own because it closes the gates of the keysets:
// no replica issues from them until it ends.
func (d *DB) stopInFlight(ctx context.Context, f LedgerFilter, by Actor) (barrier time.Time, err error) {
	err = d.engine.Update(ctx, func(tx Tx) error {
		if barrier, err = tx.RaiseIssueBarrier(ctx, f.KeysetID, f.IssuedBefore); err != nil {
			return err
		}
		return mayAct(ctx, tx, by)
	})
	return barrier, err
}

// CountMatching returns how many live tokens a [DB.RevokeMatching] of the filter
// would find, not counting what is being issued.
func (d *DB) CountMatching(ctx context.Context, f LedgerFilter) (n int64, err error) {
	if err := f.check(); err != nil {
		return 0, err
	}
	f.Live = true
	err = d.engine.View(ctx, func(tx Tx) (err error) {
		n, err = tx.CountIssuances(ctx, f)
		return err
	})
	return n, err
}
