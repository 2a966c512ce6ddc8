package sqlite

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/google/uuid"

	"github.com/zonemint/zonemint/store"
	"github.com/zonemint/zonemint/store/sqlite/dbsqlc"
)

func (t *tx) Revoked(ctx context.Context, keyset uuid.UUID, jti string) (bool, error) {
	revoked, err := t.q.IsRevoked(ctx, dbsqlc.IsRevokedParams{KeysetID: keyset.String(), Jti: jti})
	return revoked, interpret(err)
}

func (t *tx) Revocation(ctx context.Context, keyset uuid.UUID, jti string) (store.Revocation, error) {
	row, err := t.q.GetRevocation(ctx, dbsqlc.GetRevocationParams{KeysetID: keyset.String(), Jti: jti})
	return toRevocation(row), interpret(err)
}

func (t *tx) RevocationsOf(ctx context.Context, keyset uuid.UUID, jtis []string) ([]store.Revocation, error) {
	rows, err := t.q.ListRevocationsByJti(ctx, dbsqlc.ListRevocationsByJtiParams{
		KeysetID: keyset.String(), Jtis: store.EncodeList(jtis),
	})
	return mapRows(rows, toRevocation), interpret(err)
}

func (t *tx) RevocationsAfter(ctx context.Context, keyset uuid.UUID, seq int64, lifted bool, limit int) ([]store.Revocation, error) {
	rows, err := t.q.ListRevocationsAfter(ctx, dbsqlc.ListRevocationsAfterParams{
		KeysetID: keyset.String(), AfterSeq: seq, ExpiredBy: t.clock().Add(-store.RevocationGrace).UnixMicro(),
		Lifted: lifted, MaxRows: int64(limit),
	})
	return mapRows(rows, toRevocation), interpret(err)
}

func toRevocation(r dbsqlc.Revocation) store.Revocation {
	return store.Revocation{
		KeysetID: id(r.KeysetID), JTI: r.Jti, Seq: r.Seq, ExpiresAt: at(r.ExpiresAt), RevokedAt: at(r.RevokedAt),
		LiftedAt: utc(r.LiftedAt), Reason: r.Reason, Caller: r.Caller,
	}
}

func (t *tx) PutRevocations(ctx context.Context, keyset uuid.UUID, rows []store.Revocation) error {
	table := make([][6]any, len(rows))
	for i, r := range rows {
		table[i] = [6]any{r.JTI, r.Seq, r.ExpiresAt.UnixMicro(), r.RevokedAt.UnixMicro(), r.Reason, r.Caller}
	}
	b, err := json.Marshal(table)
	if err != nil {
		return fmt.Errorf("encoding revocations: %w", err)
	}
	return interpret(t.q.PutRevocations(ctx, dbsqlc.PutRevocationsParams{KeysetID: keyset.String(), Rows: string(b)}))
}

func (t *tx) LiftRevocation(ctx context.Context, r store.Revocation) error {
	return changed(t.q.LiftRevocation(ctx, dbsqlc.LiftRevocationParams{
		KeysetID: r.KeysetID.String(), Jti: r.JTI, Seq: r.Seq, LiftedAt: micro(r.LiftedAt),
	}))
}
