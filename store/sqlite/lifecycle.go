package sqlite

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/zonemint/zonemint/store"
	"github.com/zonemint/zonemint/store/sqlite/dbsqlc"
)

func (t *tx) LockKeyset(ctx context.Context, keyset uuid.UUID) (store.Keyset, error) {
	row, err := t.q.LockKeyset(ctx, keyset.String())
	return toKeyset(row), interpret(err)
}

func (t *tx) UpdateKeyset(ctx context.Context, ks store.Keyset) error {
	n, err := t.q.UpdateKeyset(ctx, dbsqlc.UpdateKeysetParams{
		Algorithm: ks.Algorithm, Backend: ks.Backend, Distribution: string(ks.Distribution), Policy: ks.PolicyText,
		UpdatedAt: ks.UpdatedAt.UnixMicro(), Mac: ks.MAC, ID: ks.ID.String(), WasVersion: ks.Version - 1,
	})
	return changed(n, err)
}

func (t *tx) LiveKeysOf(ctx context.Context, keyset uuid.UUID) ([]store.SigningKey, error) {
	rows, err := t.q.ListKeysOf(ctx, keyset.String())
	return mapRows(rows, toSigningKey), interpret(err)
}

func (t *tx) SigningKey(ctx context.Context, keyset uuid.UUID, serial int) (store.SigningKey, error) {
	row, err := t.q.GetSigningKey(ctx, dbsqlc.GetSigningKeyParams{KeysetID: keyset.String(), Serial: int64(serial)})
	return toSigningKey(row), interpret(err)
}

func (t *tx) SeriesOf(ctx context.Context, keyset uuid.UUID) (store.Series, error) {
	row, err := t.q.GetSeries(ctx, keyset.String())
	return store.Series{LastSerial: int(row.LastSerial), SignedSince: orNever(row.SignedSince)}, interpret(err)
}

func (t *tx) AllSeries(ctx context.Context) (map[uuid.UUID]store.Series, error) {
	rows, err := t.q.ListSeries(ctx)
	all := make(map[uuid.UUID]store.Series, len(rows))
	for _, r := range rows {
		all[id(r.KeysetID)] = store.Series{LastSerial: int(r.LastSerial), SignedSince: orNever(r.SignedSince)}
	}
	return all, interpret(err)
}

func (t *tx) Replicas(ctx context.Context) ([]store.ReplicaLease, error) {
	rows, err := t.q.ListReplicas(ctx)
	return mapRows(rows, toReplica), interpret(err)
}

func toReplica(r dbsqlc.Replica) store.ReplicaLease {
	return store.ReplicaLease{
		Replica: store.Replica{
			ID: id(r.ID), Name: r.Name, Version: r.Version, Generation: r.Generation,
			ClockOffset: time.Duration(r.ClockOffsetUs) * time.Microsecond,
			CacheFor:    time.Duration(r.CacheUs) * time.Microsecond,
			LeaseTTL:    time.Duration(r.LeaseUs) * time.Microsecond,
		},
		StartedAt: at(r.StartedAt), LeaseUntil: at(r.LeaseUntil),
		AckedAt: utc(r.AckedAt),
	}
}

func (t *tx) PutAcknowledgement(ctx context.Context, a store.Acknowledgement) error {
	return interpret(t.q.PutAcknowledgement(ctx, dbsqlc.PutAcknowledgementParams{
		KeysetID: a.KeysetID.String(), Consumer: a.Consumer, Kids: store.EncodeList(a.KIDs), Generation: a.Generation,
		Caller: a.Caller, AckedAt: a.AckedAt.UnixMicro(),
	}))
}

func (t *tx) Acknowledgements(ctx context.Context) ([]store.Acknowledgement, error) {
	rows, err := t.q.ListAcknowledgements(ctx)
	return mapRows(rows, func(r dbsqlc.Acknowledgement) store.Acknowledgement {
		return store.Acknowledgement{
			KeysetID: id(r.KeysetID), Consumer: r.Consumer, KIDs: store.DecodeList(r.Kids), Generation: r.Generation,
			Caller: r.Caller, AckedAt: at(r.AckedAt),
		}
	}), interpret(err)
}

func flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}
