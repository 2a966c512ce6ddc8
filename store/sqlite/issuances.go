package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/zonemint/zonemint/store"
	"github.com/zonemint/zonemint/store/sqlite/dbsqlc"
)

// where is the condition of a filter on the ledger l. It is put together, and not
// one statement that asks of each part whether it is there: then no index would
// be used.
type where struct {
	conds []string
	args  []any
}

func (w *where) and(cond string, value any, isSet bool) {
	if isSet {
		w.conds, w.args = append(w.conds, cond), append(w.args, value)
	}
}

func (t *tx) whereOf(f store.LedgerFilter) *where {
	w := &where{conds: []string{"true"}}
	from, to := f.JTIs()
	w.and("l.jti >= ?", from.String(), from != uuid.Nil)
	w.and("l.jti < ?", to.String(), to != uuid.Max)
	w.and("l.keyset_id = ?", f.KeysetID.String(), f.KeysetID != uuid.Nil)
	w.and("l.serial = ?", f.Serial, f.Serial != 0)
	w.and("l.subject = ?", f.Subject, f.Subject != "")
	w.and("l.caller = ?", f.Caller, f.Caller != "")
	w.and("l.issued_at >= ?", f.IssuedAfter.UnixMicro(), !f.IssuedAfter.IsZero())
	w.and("l.issued_at < ?", f.IssuedBefore.UnixMicro(), !f.IssuedBefore.IsZero())
	w.and(`EXISTS (SELECT 1 FROM json_each(?) p WHERE CASE WHEN substr(p.value, -1) = '*'
		THEN substr(l.subject, 1, length(p.value) - 1) = substr(p.value, 1, length(p.value) - 1)
		ELSE l.subject = p.value END)`, store.EncodeList(f.Subjects), len(f.Subjects) > 0)
	w.and("l.expires_at > ?", t.clock().UnixMicro(), f.Live)
	w.and("l.expires_at > ?", t.clock().Add(-store.Leeway).UnixMicro(), f.Acceptable)
	return w
}

func (w *where) String() string { return strings.Join(w.conds, " AND ") }

func (t *tx) CountIssuances(ctx context.Context, f store.LedgerFilter) (n int64, err error) {
	w := t.whereOf(f)
	err = t.t.QueryRowContext(ctx, "SELECT count(*) FROM ledger l WHERE "+w.String(), w.args...).Scan(&n)
	return n, interpret(err)
}

// JTIAt implements [store.Tx].
func (t *tx) JTIAt(ctx context.Context, f store.LedgerFilter, offset int) (uuid.UUID, error) {
	w := t.whereOf(f)
	query := "SELECT l.jti FROM ledger l WHERE " + w.String() + " ORDER BY l.jti LIMIT 1 OFFSET ?"
	var jti string
	err := t.t.QueryRowContext(ctx, query, append(w.args, offset)...).Scan(&jti)
	if errors.Is(err, sql.ErrNoRows) {
		return uuid.Max, nil
	}
	if err != nil {
		return uuid.Nil, interpret(err)
	}
	return id(jti), nil
}

func (t *tx) Issuances(ctx context.Context, f store.LedgerFilter, before uuid.UUID, limit int) (list []store.Issuance, err error) {
	w := t.whereOf(f)
	w.and("l.jti < ?", before.String(), true)
	//nolint:gosec // the conditions are ours, values are parameters
	query := `SELECT jti, keyset_id, serial, subject, scopes, issued_at, expires_at, caller, writer, batch
		FROM ledger l WHERE ` + w.String() + ` ORDER BY l.jti DESC LIMIT ?`
	rows, err := t.t.QueryContext(ctx, query, append(w.args, limit)...)
	if err != nil {
		return nil, interpret(err)
	}
	defer rows.Close() //nolint:errcheck // its error is that of rows.Err
	for rows.Next() {
		var r dbsqlc.Ledger
		err := rows.Scan(&r.Jti, &r.KeysetID, &r.Serial, &r.Subject, &r.Scopes, &r.IssuedAt, &r.ExpiresAt, &r.Caller, &r.Writer, &r.Batch)
		if err != nil {
			return nil, interpret(err)
		}
		list = append(list, toIssuance(r))
	}
	return list, interpret(rows.Err())
}

// RevokeIssuances implements [store.Tx]. Those that match are numbered in the order
// of their feed, from its last number on.
func (t *tx) RevokeIssuances(ctx context.Context, f store.LedgerFilter, like store.Revocation) (int64, error) {
	if f.KeysetID != uuid.Nil {
		if _, err := t.LockFeed(ctx, f.KeysetID); err != nil {
			return 0, err
		}
	}
	w := t.whereOf(f)
	//nolint:gosec // the conditions are ours, values are parameters
	statement := `INSERT INTO revocations (keyset_id, jti, seq, expires_at, revoked_at, reason, caller)
		SELECT l.keyset_id, l.jti, f.last_seq + row_number() OVER (PARTITION BY l.keyset_id ORDER BY l.jti),
			max(l.expires_at, coalesce(r.expires_at, 0)), ?, ?, ?
		FROM ledger l JOIN revocation_feeds f ON f.keyset_id = l.keyset_id
		LEFT JOIN revocations r ON r.keyset_id = l.keyset_id AND r.jti = l.jti
		WHERE ` + w.String() + ` AND (r.jti IS NULL OR r.lifted_at IS NOT NULL OR r.expires_at < l.expires_at)
		ON CONFLICT (keyset_id, jti) DO UPDATE
		SET seq = excluded.seq, expires_at = excluded.expires_at, revoked_at = excluded.revoked_at, lifted_at = NULL,
			reason = excluded.reason, caller = excluded.caller`
	args := append([]any{like.RevokedAt.UnixMicro(), like.Reason, like.Caller}, w.args...)
	result, err := t.t.ExecContext(ctx, statement, args...)
	if err != nil {
		return 0, interpret(err)
	}
	n, err := result.RowsAffected()
	if err != nil {
		return 0, interpret(err)
	}
	return n, interpret(t.q.AdvanceRevocationFeeds(ctx))
}

// RaiseIssueBarrier implements [store.Tx]. Writers take turns: no batch is under way.
func (t *tx) RaiseIssueBarrier(ctx context.Context, keyset uuid.UUID, latest time.Time) (time.Time, error) {
	barrier := t.clock()
	if !latest.IsZero() && latest.Before(barrier) {
		barrier = latest
	}
	p := dbsqlc.RaiseIssueBarrierParams{Barrier: barrier.UnixMicro()}
	if keyset != uuid.Nil {
		p.KeysetID = keyset.String()
	}
	return barrier, interpret(t.q.RaiseIssueBarrier(ctx, p))
}

func (t *tx) LiveTokens(ctx context.Context, keyset uuid.UUID) (map[int]int64, error) {
	rows, err := t.q.CountLiveTokens(ctx, dbsqlc.CountLiveTokensParams{KeysetID: keyset.String(), Now: t.clock().UnixMicro()})
	live := make(map[int]int64, len(rows))
	for _, r := range rows {
		live[int(r.Serial)] = r.Tokens
	}
	return live, interpret(err)
}
