package postgres

import (
	"context"

	"github.com/zonemint/zonemint/store"
	"github.com/zonemint/zonemint/store/postgres/dbsqlc"
)

func (t tx) InsertLegacyKey(ctx context.Context, k store.LegacyKey) error {
	return interpret(t.q.InsertLegacyKey(ctx, dbsqlc.InsertLegacyKeyParams{
		ID: k.ID, Kind: string(k.Kind), Serial: int32(k.Serial), State: string(k.State), Secret: k.Secret, Digest: k.Digest,
		Thumbprint: ref(k.Thumbprint), Imported: k.Imported, CreatedBy: k.CreatedBy, CreatedAt: k.CreatedAt,
		RetiredAt: refTime(k.RetiredAt), Version: k.Version, Mac: k.MAC,
	}))
}

func (t tx) LegacyKeys(ctx context.Context, kind store.LegacyKind) ([]store.LegacyKey, error) {
	rows, err := t.q.ListLegacyKeys(ctx, string(kind))
	return mapRows(rows, toLegacyKey), interpret(err)
}

// LockLegacyKeys asks twice: a statement sees what was committed when it began, and
// the first one may have waited.
func (t tx) LockLegacyKeys(ctx context.Context, kind store.LegacyKind) ([]store.LegacyKey, error) {
	if err := t.q.TakeTurnWithLegacyKeys(ctx, string(kind)); err != nil {
		return nil, interpret(err)
	}
	return t.LegacyKeys(ctx, kind)
}

func (t tx) UpdateLegacyKey(ctx context.Context, k store.LegacyKey, was store.LegacyState) error {
	n, err := t.q.UpdateLegacyKey(ctx, dbsqlc.UpdateLegacyKeyParams{
		State: string(k.State), Secret: k.Secret, RetiredAt: refTime(k.RetiredAt), RemovedAt: refTime(k.RemovedAt),
		Mac: k.MAC, ID: k.ID, WasState: string(was), WasVersion: k.Version - 1,
	})
	return changed(n, err)
}

func toLegacyKey(r dbsqlc.LegacyKey) store.LegacyKey {
	return store.LegacyKey{
		ID: r.ID, Kind: store.LegacyKind(r.Kind), Serial: int(r.Serial), State: store.LegacyState(r.State),
		Secret: r.Secret, Digest: r.Digest, Thumbprint: deref(r.Thumbprint), Imported: r.Imported, CreatedBy: r.CreatedBy,
		CreatedAt: r.CreatedAt.UTC(), RetiredAt: utc(r.RetiredAt), RemovedAt: utc(r.RemovedAt), Version: r.Version, MAC: r.Mac,
	}
}
