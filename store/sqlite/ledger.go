package sqlite

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/zonemint/zonemint/store"
	"github.com/zonemint/zonemint/store/sqlite/dbsqlc"
)

// AppendLedger implements [store.Engine]. Writers take turns, so what is checked
// here holds until the commit.
func (e *Engine) AppendLedger(ctx context.Context, b store.LedgerBatch) (refused store.Refused, err error) {
	t, err := e.write.BeginTx(ctx, nil)
	if err != nil {
		return refused, interpret(err)
	}
	defer func() {
		if err != nil || !refused.Empty() {
			_ = t.Rollback() // nothing to add to err
		}
	}()
	q := dbsqlc.New(t)
	if refused, err = e.refused(ctx, q, &b); err != nil || !refused.Empty() {
		return refused, err
	}
	for _, k := range b.Keys {
		if err := q.RaiseLastExpiry(ctx, dbsqlc.RaiseLastExpiryParams{Expiry: k.MaxExpiry.UnixMicro(), ID: k.ID.String()}); err != nil {
			return refused, interpret(err)
		}
	}
	rows, err := encodeRows(b.Rows)
	if err != nil {
		return refused, err
	}
	if err := q.InsertIssuances(ctx, dbsqlc.InsertIssuancesParams{Writer: b.Writer.String(), Batch: b.Batch, Rows: rows}); err != nil {
		return refused, interpret(err)
	}
	err = q.InsertBatch(ctx, dbsqlc.InsertBatchParams{
		Writer: b.Writer.String(), Batch: b.Batch, RowCount: int64(b.RowCount), FirstJti: b.FirstJTI.String(),
		LastJti: b.LastJTI.String(), Hash: b.Hash, Mac: b.MAC, CommittedAt: e.clock().UnixMicro(),
	})
	if err != nil {
		return refused, interpret(err)
	}
	return refused, atCommit(t.Commit())
}

func (e *Engine) refused(ctx context.Context, q *dbsqlc.Queries, b *store.LedgerBatch) (r store.Refused, err error) {
	for _, k := range b.Keys {
		may, err := q.MaySign(ctx, dbsqlc.MaySignParams{ID: k.ID.String(), MinIssued: k.MinIssued.UnixMicro()})
		if err != nil {
			return r, interpret(err)
		}
		if !may {
			r.Keys = append(r.Keys, k.ID)
		}
	}
	now := e.clock().UnixMicro()
	for _, c := range b.Callers {
		may, err := q.MayCall(ctx, dbsqlc.MayCallParams{ID: c.String(), Now: now})
		if err != nil {
			return r, interpret(err)
		}
		if !may {
			r.Callers = append(r.Callers, c)
		}
	}
	return r, nil
}

// encodeRows returns rows as the JSON array of arrays that InsertIssuances reads.
func encodeRows(rows []store.Issuance) (string, error) {
	table := make([][8]any, len(rows))
	for i := range rows {
		r := &rows[i]
		table[i] = [8]any{
			r.JTI, r.KeysetID, r.Serial, r.Subject, r.Scopes, r.IssuedAt.UnixMicro(), r.ExpiresAt.UnixMicro(), r.Caller,
		}
	}
	b, err := json.Marshal(table)
	if err != nil {
		return "", fmt.Errorf("encoding ledger rows: %w", err)
	}
	return string(b), nil
}

// pruneStep bounds what one transaction of a prune deletes.
const pruneStep = 5000

// Maintain implements [store.Engine]. It deletes rows in short transactions, so
// that issuing goes on in between. What fails does not keep the rest from being done.
func (e *Engine) Maintain(ctx context.Context, retention time.Duration) (m store.Maintained, err error) {
	now := e.clock()
	var errs []error
	check := func(what string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", what, interpret(err)))
		}
	}
	check("forgetting replicas", dbsqlc.New(e.write).ForgetReplicas(ctx, now.Add(-24*time.Hour).UnixMicro()))
	if retention != math.MaxInt64 {
		check("forgetting old rows of the ledger", e.forgetIssuances(ctx, now.Add(-retention), &m))
	}
	check("forgetting revocations of expired tokens", e.forgetRevocations(ctx, now.Add(-store.RevocationGrace), &m))
	if err := e.remember(ctx); err != nil {
		errs = append(errs, err)
	}
	return m, errors.Join(errs...)
}

func (e *Engine) forgetIssuances(ctx context.Context, before time.Time, m *store.Maintained) error {
	q := dbsqlc.New(e.write)
	for {
		n, err := q.PruneLedger(ctx, dbsqlc.PruneLedgerParams{
			BeforeJti: store.FirstJTI(before).String(), ExpiredBefore: before.UnixMicro(), MaxRows: pruneStep,
		})
		if err != nil {
			return err
		}
		m.RowsForgotten += n
		if n < pruneStep {
			return nil
		}
	}
}
