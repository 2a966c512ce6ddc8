package postgres

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/zonemint/zonemint/store"
	"github.com/zonemint/zonemint/store/postgres/dbsqlc"
)

// tx implements [store.Tx].
type tx struct {
	q *dbsqlc.Queries
	t pgx.Tx // for statements that are put together
}

var _ store.Tx = tx{}

func (t tx) Now(ctx context.Context) (time.Time, error) {
	now, err := t.q.Now(ctx)
	return now.UTC(), interpret(err)
}

func (t tx) Installation(ctx context.Context) (store.Installation, error) {
	row, err := t.q.GetInstallation(ctx)
	return store.Installation{
		ID: row.ID, Generation: row.Generation, KeyCheck: row.KeyCheck, Incarnation: row.Incarnation,
	}, interpret(err)
}

func (t tx) InsertInstallation(ctx context.Context, in store.Installation) error {
	return interpret(t.q.InsertInstallation(ctx, dbsqlc.InsertInstallationParams{ID: in.ID, KeyCheck: in.KeyCheck}))
}

func (t tx) BumpGeneration(ctx context.Context) (int64, error) {
	g, err := t.q.BumpGeneration(ctx)
	return g, interpret(err)
}

func (t tx) Notify(ctx context.Context, topic store.Topic) error {
	return interpret(t.q.Notify(ctx, string(topic)))
}

func (t tx) LeapGeneration(ctx context.Context) error { return interpret(t.q.LeapGeneration(ctx)) }

func (t tx) InsertKeyset(ctx context.Context, ks store.Keyset) error {
	err := t.q.InsertKeyset(ctx, dbsqlc.InsertKeysetParams{
		ID: ks.ID, Name: ks.Name, Profile: string(ks.Profile), Algorithm: ks.Algorithm, Backend: ks.Backend,
		Distribution: string(ks.Distribution), Policy: ks.PolicyText,
		CreatedAt: ks.CreatedAt, UpdatedAt: ks.UpdatedAt, Version: ks.Version, Mac: ks.MAC,
	})
	if err != nil {
		return interpret(err)
	}
	return interpret(t.q.InsertRevocationFeed(ctx, dbsqlc.InsertRevocationFeedParams{KeysetID: ks.ID, Epoch: uuid.New()}))
}

func (t tx) Keysets(ctx context.Context) ([]store.Keyset, error) {
	rows, err := t.q.ListKeysets(ctx)
	return mapRows(rows, toKeyset), interpret(err)
}

func toKeyset(r dbsqlc.Keyset) store.Keyset {
	return store.Keyset{
		ID: r.ID, Name: r.Name, Profile: store.Profile(r.Profile), Algorithm: r.Algorithm, Backend: r.Backend,
		Distribution: store.Distribution(r.Distribution), PolicyText: r.Policy,
		CreatedAt: r.CreatedAt.UTC(), UpdatedAt: r.UpdatedAt.UTC(), Version: r.Version, MAC: r.Mac,
	}
}

func (t tx) InsertSigningKey(ctx context.Context, k store.SigningKey) error {
	return interpret(t.q.InsertSigningKey(ctx, dbsqlc.InsertSigningKeyParams{
		ID: k.ID, KeysetID: k.KeysetID, Serial: int32(k.Serial), Role: string(k.Role), State: string(k.State),
		Algorithm: k.Algorithm, Backend: k.Backend, Label: k.Label,
		Kid: ref(k.KID), Thumbprint: ref(k.Thumbprint), PublicKey: k.PublicKey,
		Imported: k.Imported, Adopted: k.Adopted, TrustedUntil: refTime(k.TrustedUntil), Reason: k.Reason,
		CreatedAt: k.CreatedAt, PublishedAt: refTime(k.PublishedAt), ActivateAfter: refTime(k.ActivateAfter),
		RetiredAt: refTime(k.RetiredAt), Version: k.Version, Mac: k.MAC,
	}))
}

func (t tx) LiveSigningKeys(ctx context.Context) ([]store.SigningKey, error) {
	rows, err := t.q.ListLiveSigningKeys(ctx)
	return mapRows(rows, toSigningKey), interpret(err)
}

func (t tx) SigningKeys(ctx context.Context, keyset uuid.UUID) ([]store.SigningKey, error) {
	rows, err := t.q.ListSigningKeysOfKeyset(ctx, keyset)
	return mapRows(rows, toSigningKey), interpret(err)
}

func (t tx) LockSigningKey(ctx context.Context, id uuid.UUID) (store.SigningKey, error) {
	if err := t.q.CloseGateOfKeyset(ctx, id); err != nil {
		return store.SigningKey{}, interpret(err)
	}
	row, err := t.q.LockSigningKey(ctx, id)
	return toSigningKey(row), interpret(err)
}

func toSigningKey(r dbsqlc.SigningKey) store.SigningKey {
	return store.SigningKey{
		ID: r.ID, KeysetID: r.KeysetID, Serial: int(r.Serial), Role: store.Role(r.Role), State: store.State(r.State),
		Algorithm: r.Algorithm, Backend: r.Backend, Label: r.Label, Ref: r.Ref,
		KID: deref(r.Kid), Thumbprint: deref(r.Thumbprint), PublicKey: r.PublicKey,
		Imported: r.Imported, Reason: r.Reason, CreatedAt: r.CreatedAt.UTC(),
		PublishedAt: utc(r.PublishedAt), ActivateAfter: utc(r.ActivateAfter), ActivatedAt: utc(r.ActivatedAt),
		RetiredAt: utc(r.RetiredAt), RemovedAt: utc(r.RemovedAt), DestroyedAt: utc(r.DestroyedAt),
		DestroyAskedAt: utc(r.DestroyAskedAt), MakingUntil: utc(r.LeaseUntil),
		TrustedUntil: utc(r.TrustedUntil), Attestation: r.Attestation, Adopted: r.Adopted,
		Version: r.Version, MAC: r.Mac, LastExpiry: r.LastExpiry.UTC(),
	}
}

func (t tx) ClaimSigningKey(ctx context.Context, id, owner uuid.UUID, ttl time.Duration) (int64, error) {
	fence, err := t.q.ClaimSigningKey(ctx, dbsqlc.ClaimSigningKeyParams{Owner: &owner, Seconds: ttl.Seconds(), ID: id})
	if err = interpret(err); errors.Is(err, store.ErrNotFound) {
		return 0, store.ErrConflict
	}
	return fence, err
}

func (t tx) ReleaseSigningKey(ctx context.Context, id uuid.UUID, fence int64) error {
	return interpret(t.q.ReleaseSigningKey(ctx, dbsqlc.ReleaseSigningKeyParams{ID: id, Fence: fence}))
}

func (t tx) UpdateSigningKey(ctx context.Context, k store.SigningKey, was store.State, fence int64) error {
	n, err := t.q.UpdateSigningKey(ctx, dbsqlc.UpdateSigningKeyParams{
		State: string(k.State), Ref: k.Ref, Kid: ref(k.KID), Thumbprint: ref(k.Thumbprint), PublicKey: k.PublicKey,
		Reason: k.Reason, PublishedAt: refTime(k.PublishedAt), ActivateAfter: refTime(k.ActivateAfter),
		ActivatedAt: refTime(k.ActivatedAt), RetiredAt: refTime(k.RetiredAt), RemovedAt: refTime(k.RemovedAt),
		DestroyedAt: refTime(k.DestroyedAt), DestroyAskedAt: refTime(k.DestroyAskedAt), Attestation: k.Attestation,
		Mac: k.MAC, ID: k.ID, WasState: string(was), WasVersion: k.Version - 1, Fence: fence,
	})
	return changed(n, err)
}

func (t tx) InsertAPIToken(ctx context.Context, a store.APIToken) error {
	return interpret(t.q.InsertApiToken(ctx, dbsqlc.InsertApiTokenParams{
		ID: a.ID, Name: a.Name, Hash: a.Hash, Roles: store.EncodeList(a.Roles), Keysets: store.EncodeList(a.Keysets),
		Zones: store.EncodeList(a.Zones), Scopes: store.EncodeList(a.Scopes), Dataplanes: store.EncodeList(a.Dataplanes), MaxValidForS: int64(a.MaxValidFor / time.Second),
		CreatedBy: a.CreatedBy, CreatedAt: a.CreatedAt, ExpiresAt: a.ExpiresAt, Version: a.Version, Mac: a.MAC,
	}))
}

func (t tx) APITokenByHash(ctx context.Context, hash []byte) (store.APIToken, error) {
	row, err := t.q.GetApiTokenByHash(ctx, hash)
	return toAPIToken(row), interpret(err)
}

func (t tx) MayCall(ctx context.Context, id uuid.UUID) (bool, error) {
	ids, err := t.q.MayCall(ctx, id)
	return len(ids) == 1, interpret(err)
}

func (t tx) LockAPIToken(ctx context.Context, id uuid.UUID) (store.APIToken, error) {
	if err := t.q.CloseGateOfApiToken(ctx, id); err != nil {
		return store.APIToken{}, interpret(err)
	}
	row, err := t.q.LockApiToken(ctx, id)
	return toAPIToken(row), interpret(err)
}

func (t tx) APITokens(ctx context.Context, before uuid.UUID, limit int) ([]store.APIToken, error) {
	rows, err := t.q.ListApiTokens(ctx, dbsqlc.ListApiTokensParams{Before: before, MaxRows: int32(limit)})
	return mapRows(rows, toAPIToken), interpret(err)
}

func toAPIToken(r dbsqlc.ApiToken) store.APIToken {
	t := store.APIToken{
		ID: r.ID, Name: r.Name, Hash: r.Hash, MaxValidFor: time.Duration(r.MaxValidForS) * time.Second,
		CreatedBy: r.CreatedBy, CreatedAt: r.CreatedAt.UTC(), ExpiresAt: r.ExpiresAt.UTC(), RevokedAt: utc(r.RevokedAt),
		Version: r.Version, MAC: r.Mac,
	}
	t.DecodeLists(r.Roles, r.Keysets, r.Zones, r.Scopes, r.Dataplanes)
	return t
}

func (t tx) RevokeAPIToken(ctx context.Context, a store.APIToken) error {
	n, err := t.q.RevokeApiToken(ctx, dbsqlc.RevokeApiTokenParams{
		RevokedAt: refTime(a.RevokedAt), Mac: a.MAC, ID: a.ID, WasVersion: a.Version - 1,
	})
	return changed(n, err)
}

func (t tx) InsertAuditEvent(ctx context.Context, e store.AuditEvent) error {
	return interpret(t.q.InsertAuditEvent(ctx, dbsqlc.InsertAuditEventParams{
		ID: e.ID, At: e.At, Actor: e.Actor, Action: e.Action, Target: e.Target, Detail: e.Detail, RequestID: e.RequestID,
	}))
}

func (t tx) AuditEvents(ctx context.Context, f store.AuditFilter, before uuid.UUID, limit int) ([]store.AuditEvent, error) {
	rows, err := t.q.ListAuditEvents(ctx, dbsqlc.ListAuditEventsParams{
		BeforeID: before, ActionPrefix: f.ActionPrefix, Actor: f.Actor,
		After: refTime(f.After), Before: refTime(f.Before), MaxRows: rowLimit(limit),
	})
	return mapRows(rows, func(r dbsqlc.AuditEvent) store.AuditEvent {
		r.At = r.At.UTC()
		return store.AuditEvent(r)
	}), interpret(err)
}

func (t tx) Issuance(ctx context.Context, jti uuid.UUID) (store.Issuance, error) {
	row, err := t.q.GetIssuance(ctx, jti)
	return toIssuance(row), interpret(err)
}

func toIssuance(r dbsqlc.Ledger) store.Issuance {
	return store.Issuance{
		JTI: r.Jti, KeysetID: r.KeysetID, Serial: int(r.Serial), Subject: r.Subject, Scopes: r.Scopes,
		IssuedAt: r.IssuedAt.UTC(), ExpiresAt: r.ExpiresAt.UTC(), Caller: r.Caller, Writer: r.Writer, Batch: r.Batch,
	}
}

func (t tx) LedgerWriters(ctx context.Context) ([]uuid.UUID, error) {
	ids, err := t.q.ListLedgerWriters(ctx)
	return ids, interpret(err)
}

func (t tx) LedgerBatches(ctx context.Context, writer uuid.UUID, after int64, limit int) ([]store.LedgerBatch, error) {
	rows, err := t.q.ListLedgerBatches(ctx, dbsqlc.ListLedgerBatchesParams{Writer: writer, AfterBatch: after, MaxRows: int32(limit)})
	return mapRows(rows, func(r dbsqlc.ListLedgerBatchesRow) store.LedgerBatch {
		return store.LedgerBatch{
			Writer: r.Writer, Batch: r.Batch, RowCount: int(r.RowCount),
			FirstJTI: r.FirstJti, LastJTI: r.LastJti, Hash: r.Hash, MAC: r.Mac,
		}
	}), interpret(err)
}

func (t tx) BatchRows(ctx context.Context, b store.LedgerBatch) ([]store.Issuance, error) {
	rows, err := t.q.ListBatchRows(ctx, dbsqlc.ListBatchRowsParams{
		FirstJti: b.FirstJTI, LastJti: b.LastJTI, Writer: b.Writer, Batch: b.Batch,
	})
	return mapRows(rows, toIssuance), interpret(err)
}

// rowLimit keeps a caller's limit within what the database counts to.
func rowLimit(n int) int32 { return int32(min(n, math.MaxInt32)) }

func changed(rows int64, err error) error {
	if err != nil {
		return interpret(err)
	}
	if rows == 0 {
		return store.ErrConflict
	}
	return nil
}

func mapRows[R, T any](rows []R, to func(R) T) []T {
	out := make([]T, len(rows))
	for i, r := range rows {
		out[i] = to(r)
	}
	return out
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func ref(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func utc(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.UTC()
}

// orNever returns the zero time for the epoch, which stands for none.
func orNever(t time.Time) time.Time {
	if t.UnixMicro() == 0 {
		return time.Time{}
	}
	return t.UTC()
}

func refTime(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
