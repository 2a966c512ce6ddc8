package postgres

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/zonemint/zonemint/store"
	"github.com/zonemint/zonemint/store/postgres/dbsqlc"
)

// where is the condition of a filter on the ledger l. It is put together, and not
// one statement that asks of each part whether it is there: the planner is to see
// what is asked for, and partitions and indexes that do not matter stay out.
type where struct {
	conds []string
	args  []any
}

// arg adds a parameter and returns its name.
func (w *where) arg(value any) string {
	w.args = append(w.args, value)
	return "$" + strconv.Itoa(len(w.args))
}

func (w *where) and(column string, value any, isSet bool) {
	if isSet {
		w.conds = append(w.conds, column+w.arg(value))
	}
}

func whereOf(f store.LedgerFilter) *where {
	w := &where{}
	from, to := f.JTIs()
	w.and("l.jti >= ", from, from != uuid.Nil)
	w.and("l.jti < ", to, to != uuid.Max)
	w.and("l.keyset_id = ", f.KeysetID, f.KeysetID != uuid.Nil)
	w.and("l.serial = ", f.Serial, f.Serial != 0)
	w.and("l.subject = ", f.Subject, f.Subject != "")
	w.and("l.caller = ", f.Caller, f.Caller != "")
	w.and("l.issued_at >= ", f.IssuedAfter, !f.IssuedAfter.IsZero())
	w.and("l.issued_at < ", f.IssuedBefore, !f.IssuedBefore.IsZero())
	if len(f.Subjects) > 0 {
		w.conds = append(w.conds, `EXISTS (SELECT FROM unnest(`+w.arg(f.Subjects)+`::text[]) p
			WHERE CASE WHEN right(p, 1) = '*' THEN starts_with(l.subject, left(p, -1)) ELSE l.subject = p END)`)
	}
	if f.Live {
		w.conds = append(w.conds, "l.expires_at > now()")
	}
	if f.Acceptable {
		w.conds = append(w.conds, "l.expires_at > now() - "+w.arg(store.Leeway)+"::interval")
	}
	return w
}

func (w *where) String() string {
	if len(w.conds) == 0 {
		return "true"
	}
	return strings.Join(w.conds, " AND ")
}

func (t tx) CountIssuances(ctx context.Context, f store.LedgerFilter) (n int64, err error) {
	w := whereOf(f)
	err = t.t.QueryRow(ctx, "SELECT count(*) FROM ledger l WHERE "+w.String(), w.args...).Scan(&n)
	return n, interpret(err)
}

// JTIAt implements [store.Tx].
func (t tx) JTIAt(ctx context.Context, f store.LedgerFilter, offset int) (jti uuid.UUID, err error) {
	w := whereOf(f)
	query := "SELECT l.jti FROM ledger l WHERE " + w.String() + " ORDER BY l.jti LIMIT 1 OFFSET " + w.arg(offset)
	if err = t.t.QueryRow(ctx, query, w.args...).Scan(&jti); errors.Is(err, pgx.ErrNoRows) {
		return uuid.Max, nil
	}
	return jti, interpret(err)
}

func (t tx) Issuances(ctx context.Context, f store.LedgerFilter, before uuid.UUID, limit int) ([]store.Issuance, error) {
	w := whereOf(f)
	w.and("l.jti < ", before, true)
	query := `SELECT jti, keyset_id, serial, subject, scopes, issued_at, expires_at, caller, writer, batch
		FROM ledger l WHERE ` + w.String() + ` ORDER BY l.jti DESC LIMIT ` + w.arg(rowLimit(limit))
	rows, err := t.t.Query(ctx, query, w.args...)
	if err != nil {
		return nil, interpret(err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[dbsqlc.Ledger])
	return mapRows(list, toIssuance), interpret(err)
}

// RevokeIssuances implements [store.Tx]. The rows do not leave the server. Those
// that match are numbered in the order of their feed, from its last number on.
func (t tx) RevokeIssuances(ctx context.Context, f store.LedgerFilter, like store.Revocation) (int64, error) {
	keysets, err := t.lockFeeds(ctx, f.KeysetID)
	if err != nil {
		return 0, err
	}
	w := whereOf(f)
	matching, revokedAt, reason, caller := w.String(), w.arg(like.RevokedAt), w.arg(like.Reason), w.arg(like.Caller)
	tag, err := t.t.Exec(ctx, `INSERT INTO revocations (keyset_id, jti, seq, expires_at, revoked_at, reason, caller)
		SELECT l.keyset_id, l.jti::text, f.last_seq + row_number() OVER (PARTITION BY l.keyset_id ORDER BY l.jti),
			greatest(l.expires_at, r.expires_at), `+revokedAt+`::timestamptz, `+reason+`::text, `+caller+`::text
		FROM ledger l JOIN revocation_feeds f ON f.keyset_id = l.keyset_id
		LEFT JOIN revocations r ON r.keyset_id = l.keyset_id AND r.jti = l.jti::text
		WHERE `+matching+` AND (r.jti IS NULL OR r.lifted_at IS NOT NULL OR r.expires_at < l.expires_at)
		ON CONFLICT (keyset_id, jti) DO UPDATE
		SET seq = excluded.seq, expires_at = excluded.expires_at, revoked_at = excluded.revoked_at, lifted_at = NULL,
			reason = excluded.reason, caller = excluded.caller`, w.args...)
	if err != nil {
		return 0, interpret(err)
	}
	return tag.RowsAffected(), interpret(t.q.AdvanceRevocationFeeds(ctx, keysets))
}

func (t tx) lockFeeds(ctx context.Context, keyset uuid.UUID) ([]uuid.UUID, error) {
	if keyset != uuid.Nil {
		_, err := t.LockFeed(ctx, keyset)
		return []uuid.UUID{keyset}, err
	}
	rows, err := t.q.LockRevocationFeeds(ctx)
	return mapRows(rows, func(r dbsqlc.RevocationFeed) uuid.UUID { return r.KeysetID }), interpret(err)
}

// RaiseIssueBarrier implements [store.Tx]. The clock is read when the gates are
// closed: what was recorded before is committed, what comes after meets the barrier.
func (t tx) RaiseIssueBarrier(ctx context.Context, keyset uuid.UUID, latest time.Time) (time.Time, error) {
	var only *uuid.UUID
	if keyset != uuid.Nil {
		only = &keyset
	}
	if err := t.q.CloseGates(ctx, only); err != nil {
		return time.Time{}, interpret(err)
	}
	barrier, err := t.Now(ctx)
	if err != nil {
		return time.Time{}, err
	}
	if !latest.IsZero() && latest.Before(barrier) {
		barrier = latest
	}
	return barrier, interpret(t.q.RaiseIssueBarrier(ctx, dbsqlc.RaiseIssueBarrierParams{Barrier: barrier, KeysetID: only}))
}

func (t tx) LiveTokens(ctx context.Context, keyset uuid.UUID) (map[int]int64, error) {
	rows, err := t.q.CountLiveTokens(ctx, keyset)
	live := make(map[int]int64, len(rows))
	for _, r := range rows {
		live[int(r.Serial)] = r.Tokens
	}
	return live, interpret(err)
}
