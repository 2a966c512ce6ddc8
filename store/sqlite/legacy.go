package sqlite

import (
	"context"

	"github.com/zonemint/zonemint/store"
	"github.com/zonemint/zonemint/store/sqlite/dbsqlc"
)

func (t *tx) InsertLegacyKey(ctx context.Context, k store.LegacyKey) error {
	return interpret(t.q.InsertLegacyKey(ctx, dbsqlc.InsertLegacyKeyParams{
		ID: k.ID.String(), Kind: string(k.Kind), Serial: int64(k.Serial), State: string(k.State), Secret: k.Secret, Digest: k.Digest,
		Thumbprint: ref(k.Thumbprint), Imported: flag(k.Imported), CreatedBy: k.CreatedBy, CreatedAt: k.CreatedAt.UnixMicro(),
		RetiredAt: micro(k.RetiredAt), Version: k.Version, Mac: k.MAC,
	}))
}

func (t *tx) LegacyKeys(ctx context.Context, kind store.LegacyKind) ([]store.LegacyKey, error) {
	rows, err := t.q.ListLegacyKeys(ctx, string(kind))
	return mapRows(rows, toLegacyKey), interpret(err)
}

// LockLegacyKeys has nothing to lock: there is one writer at a time.
func (t *tx) LockLegacyKeys(ctx context.Context, kind store.LegacyKind) ([]store.LegacyKey, error) {
	return t.LegacyKeys(ctx, kind)
}

func (t *tx) UpdateLegacyKey(ctx context.Context, k store.LegacyKey, was store.LegacyState) error {
	n, err := t.q.UpdateLegacyKey(ctx, dbsqlc.UpdateLegacyKeyParams{
		State: string(k.State), Secret: k.Secret, RetiredAt: micro(k.RetiredAt), RemovedAt: micro(k.RemovedAt),
		Mac: k.MAC, ID: k.ID.String(), WasState: string(was), WasVersion: k.Version - 1,
	})
	return changed(n, err)
}

func toLegacyKey(r dbsqlc.LegacyKey) store.LegacyKey {
	return store.LegacyKey{
		ID: id(r.ID), Kind: store.LegacyKind(r.Kind), Serial: int(r.Serial), State: store.LegacyState(r.State),
		Secret: r.Secret, Digest: r.Digest, Thumbprint: deref(r.Thumbprint), Imported: r.Imported != 0, CreatedBy: r.CreatedBy,
		CreatedAt: at(r.CreatedAt), RetiredAt: utc(r.RetiredAt), RemovedAt: utc(r.RemovedAt), Version: r.Version, MAC: r.Mac,
	}
}
