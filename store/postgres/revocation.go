package postgres

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/zonemint/zonemint/store"
	"github.com/zonemint/zonemint/store/postgres/dbsqlc"
)

func (t tx) Revoked(ctx context.Context, keyset uuid.UUID, jti string) (bool, error) {
	revoked, err := t.q.IsRevoked(ctx, dbsqlc.IsRevokedParams{KeysetID: keyset, Jti: jti})
	return revoked, interpret(err)
}

func (t tx) Revocation(ctx context.Context, keyset uuid.UUID, jti string) (store.Revocation, error) {
	row, err := t.q.GetRevocation(ctx, dbsqlc.GetRevocationParams{KeysetID: keyset, Jti: jti})
	return toRevocation(row), interpret(err)
}

func (t tx) RevocationsOf(ctx context.Context, keyset uuid.UUID, jtis []string) ([]store.Revocation, error) {
	rows, err := t.q.ListRevocationsByJti(ctx, dbsqlc.ListRevocationsByJtiParams{KeysetID: keyset, Jtis: jtis})
	return mapRows(rows, toRevocation), interpret(err)
}

func (t tx) RevocationsAfter(ctx context.Context, keyset uuid.UUID, seq int64, lifted bool, limit int) ([]store.Revocation, error) {
	rows, err := t.q.ListRevocationsAfter(ctx, dbsqlc.ListRevocationsAfterParams{
		KeysetID: keyset, AfterSeq: seq, GraceSeconds: store.RevocationGrace.Seconds(),
		Lifted: lifted, MaxRows: rowLimit(limit),
	})
	return mapRows(rows, toRevocation), interpret(err)
}

func toRevocation(r dbsqlc.Revocation) store.Revocation {
	return store.Revocation{
		KeysetID: r.KeysetID, JTI: r.Jti, Seq: r.Seq, ExpiresAt: r.ExpiresAt.UTC(), RevokedAt: r.RevokedAt.UTC(),
		LiftedAt: utc(r.LiftedAt), Reason: r.Reason, Caller: r.Caller,
	}
}

func (t tx) PutRevocations(ctx context.Context, keyset uuid.UUID, rows []store.Revocation) error {
	n := len(rows)
	p := dbsqlc.PutRevocationsParams{
		KeysetID: keyset, Jtis: make([]string, n), Seqs: make([]int64, n), ExpiresAts: make([]time.Time, n),
		RevokedAts: make([]time.Time, n), Reasons: make([]string, n), Callers: make([]string, n),
	}
	for i, r := range rows {
		p.Jtis[i], p.Seqs[i], p.Reasons[i], p.Callers[i] = r.JTI, r.Seq, r.Reason, r.Caller
		p.ExpiresAts[i], p.RevokedAts[i] = r.ExpiresAt, r.RevokedAt
	}
	return interpret(t.q.PutRevocations(ctx, p))
}

func (t tx) LiftRevocation(ctx context.Context, r store.Revocation) error {
	return changed(t.q.LiftRevocation(ctx, dbsqlc.LiftRevocationParams{
		KeysetID: r.KeysetID, Jti: r.JTI, Seq: r.Seq, LiftedAt: refTime(r.LiftedAt),
	}))
}
