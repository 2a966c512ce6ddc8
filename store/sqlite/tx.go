package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"math"
	"time"

	"github.com/google/uuid"

	"github.com/zonemint/zonemint/store"
	"github.com/zonemint/zonemint/store/sqlite/dbsqlc"
)

// tx implements [store.Tx].
type tx struct {
	q     *dbsqlc.Queries
	t     *sql.Tx // for statements that are put together
	clock func() time.Time
	copy  string        // which file this is
	told  []store.Topic // of which watchers are told once it has committed
}

var _ store.Tx = (*tx)(nil)

func (t *tx) Now(ctx context.Context) (time.Time, error) {
	return t.clock(), ctx.Err()
}

func (t *tx) Installation(ctx context.Context) (store.Installation, error) {
	row, err := t.q.GetInstallation(ctx)
	return store.Installation{
		ID: id(row.ID), Generation: row.Generation, KeyCheck: row.KeyCheck, Incarnation: row.Incarnation,
	}, interpret(err)
}

func (t *tx) InsertInstallation(ctx context.Context, in store.Installation) error {
	return interpret(t.q.InsertInstallation(ctx, dbsqlc.InsertInstallationParams{
		ID: in.ID.String(), KeyCheck: in.KeyCheck, CreatedAt: t.clock().UnixMicro(),
	}))
}

func (t *tx) BumpGeneration(ctx context.Context) (int64, error) {
	g, err := t.q.BumpGeneration(ctx)
	return g, interpret(err)
}

func (t *tx) Notify(ctx context.Context, topic store.Topic) error {
	t.told = append(t.told, topic)
	return interpret(ctx.Err())
}

func (t *tx) LeapGeneration(ctx context.Context) error { return interpret(t.q.LeapGeneration(ctx)) }

func (t *tx) InsertKeyset(ctx context.Context, ks store.Keyset) error {
	err := t.q.InsertKeyset(ctx, dbsqlc.InsertKeysetParams{
		ID: ks.ID.String(), Name: ks.Name, Profile: string(ks.Profile), Algorithm: ks.Algorithm, Backend: ks.Backend,
		Distribution: string(ks.Distribution), Policy: ks.PolicyText,
		CreatedAt: ks.CreatedAt.UnixMicro(), UpdatedAt: ks.UpdatedAt.UnixMicro(), Version: ks.Version, Mac: ks.MAC,
	})
	if err != nil {
		return interpret(err)
	}
	return interpret(t.q.InsertRevocationFeed(ctx, dbsqlc.InsertRevocationFeedParams{
		KeysetID: ks.ID.String(), Epoch: uuid.NewString(),
	}))
}

func (t *tx) Keysets(ctx context.Context) ([]store.Keyset, error) {
	rows, err := t.q.ListKeysets(ctx)
	return mapRows(rows, toKeyset), interpret(err)
}

func toKeyset(r dbsqlc.Keyset) store.Keyset {
	return store.Keyset{
		ID: id(r.ID), Name: r.Name, Profile: store.Profile(r.Profile), Algorithm: r.Algorithm, Backend: r.Backend,
		Distribution: store.Distribution(r.Distribution), PolicyText: r.Policy,
		CreatedAt: at(r.CreatedAt), UpdatedAt: at(r.UpdatedAt), Version: r.Version, MAC: r.Mac,
	}
}

func (t *tx) InsertSigningKey(ctx context.Context, k store.SigningKey) error {
	return interpret(t.q.InsertSigningKey(ctx, dbsqlc.InsertSigningKeyParams{
		ID: k.ID.String(), KeysetID: k.KeysetID.String(), Serial: int64(k.Serial), Role: string(k.Role), State: string(k.State),
		Algorithm: k.Algorithm, Backend: k.Backend, Label: k.Label,
		Kid: ref(k.KID), Thumbprint: ref(k.Thumbprint), PublicKey: k.PublicKey,
		Imported: flag(k.Imported), Adopted: k.Adopted, TrustedUntil: micro(k.TrustedUntil), Reason: k.Reason,
		CreatedAt: k.CreatedAt.UnixMicro(), PublishedAt: micro(k.PublishedAt), ActivateAfter: micro(k.ActivateAfter),
		RetiredAt: micro(k.RetiredAt), Version: k.Version, Mac: k.MAC,
	}))
}

func (t *tx) LiveSigningKeys(ctx context.Context) ([]store.SigningKey, error) {
	rows, err := t.q.ListLiveSigningKeys(ctx)
	return mapRows(rows, toSigningKey), interpret(err)
}

func (t *tx) SigningKeys(ctx context.Context, keyset uuid.UUID) ([]store.SigningKey, error) {
	rows, err := t.q.ListSigningKeysOfKeyset(ctx, keyset.String())
	return mapRows(rows, toSigningKey), interpret(err)
}

func (t *tx) LockSigningKey(ctx context.Context, key uuid.UUID) (store.SigningKey, error) {
	row, err := t.q.LockSigningKey(ctx, key.String())
	return toSigningKey(row), interpret(err)
}

func toSigningKey(r dbsqlc.SigningKey) store.SigningKey {
	return store.SigningKey{
		ID: id(r.ID), KeysetID: id(r.KeysetID), Serial: int(r.Serial), Role: store.Role(r.Role), State: store.State(r.State),
		Algorithm: r.Algorithm, Backend: r.Backend, Label: r.Label, Ref: r.Ref,
		KID: deref(r.Kid), Thumbprint: deref(r.Thumbprint), PublicKey: r.PublicKey,
		Imported: r.Imported != 0, Reason: r.Reason, CreatedAt: at(r.CreatedAt),
		PublishedAt: utc(r.PublishedAt), ActivateAfter: utc(r.ActivateAfter), ActivatedAt: utc(r.ActivatedAt),
		RetiredAt: utc(r.RetiredAt), RemovedAt: utc(r.RemovedAt), DestroyedAt: utc(r.DestroyedAt),
		DestroyAskedAt: utc(r.DestroyAskedAt), MakingUntil: utc(r.LeaseUntil),
		TrustedUntil: utc(r.TrustedUntil), Attestation: r.Attestation, Adopted: r.Adopted,
		Version: r.Version, MAC: r.Mac, LastExpiry: at(r.LastExpiry),
	}
}

func (t *tx) ClaimSigningKey(ctx context.Context, key, owner uuid.UUID, ttl time.Duration) (int64, error) {
	now, who := t.clock(), owner.String()
	fence, err := t.q.ClaimSigningKey(ctx, dbsqlc.ClaimSigningKeyParams{
		Owner: &who, LeaseUntil: micro(now.Add(ttl)), Now: micro(now), ID: key.String(),
	})
	if err = interpret(err); errors.Is(err, store.ErrNotFound) {
		return 0, store.ErrConflict
	}
	return fence, err
}

func (t *tx) ReleaseSigningKey(ctx context.Context, key uuid.UUID, fence int64) error {
	return interpret(t.q.ReleaseSigningKey(ctx, dbsqlc.ReleaseSigningKeyParams{
		Now: micro(t.clock()), ID: key.String(), Fence: fence,
	}))
}

func (t *tx) UpdateSigningKey(ctx context.Context, k store.SigningKey, was store.State, fence int64) error {
	n, err := t.q.UpdateSigningKey(ctx, dbsqlc.UpdateSigningKeyParams{
		State: string(k.State), Ref: k.Ref, Kid: ref(k.KID), Thumbprint: ref(k.Thumbprint), PublicKey: k.PublicKey,
		Reason: k.Reason, PublishedAt: micro(k.PublishedAt), ActivateAfter: micro(k.ActivateAfter),
		ActivatedAt: micro(k.ActivatedAt), RetiredAt: micro(k.RetiredAt), RemovedAt: micro(k.RemovedAt),
		DestroyedAt: micro(k.DestroyedAt), DestroyAskedAt: micro(k.DestroyAskedAt), Attestation: k.Attestation,
		Mac: k.MAC, ID: k.ID.String(), WasState: string(was), WasVersion: k.Version - 1, Fence: fence,
	})
	return changed(n, err)
}

func (t *tx) InsertAPIToken(ctx context.Context, a store.APIToken) error {
	return interpret(t.q.InsertApiToken(ctx, dbsqlc.InsertApiTokenParams{
		ID: a.ID.String(), Name: a.Name, Hash: a.Hash, Roles: store.EncodeList(a.Roles), Keysets: store.EncodeList(a.Keysets),
		Zones: store.EncodeList(a.Zones), Scopes: store.EncodeList(a.Scopes), Dataplanes: store.EncodeList(a.Dataplanes), MaxValidForS: int64(a.MaxValidFor / time.Second),
		CreatedBy: a.CreatedBy, CreatedAt: a.CreatedAt.UnixMicro(), ExpiresAt: a.ExpiresAt.UnixMicro(),
		Version: a.Version, Mac: a.MAC,
	}))
}

func (t *tx) APITokenByHash(ctx context.Context, hash []byte) (store.APIToken, error) {
	row, err := t.q.GetApiTokenByHash(ctx, hash)
	return toAPIToken(row), interpret(err)
}

func (t *tx) MayCall(ctx context.Context, token uuid.UUID) (bool, error) {
	may, err := t.q.MayCall(ctx, dbsqlc.MayCallParams{ID: token.String(), Now: t.clock().UnixMicro()})
	return may, interpret(err)
}

func (t *tx) LockAPIToken(ctx context.Context, token uuid.UUID) (store.APIToken, error) {
	row, err := t.q.LockApiToken(ctx, token.String())
	return toAPIToken(row), interpret(err)
}

func (t *tx) APITokens(ctx context.Context, before uuid.UUID, limit int) ([]store.APIToken, error) {
	rows, err := t.q.ListApiTokens(ctx, dbsqlc.ListApiTokensParams{Before: before.String(), MaxRows: int64(limit)})
	return mapRows(rows, toAPIToken), interpret(err)
}

func toAPIToken(r dbsqlc.ApiToken) store.APIToken {
	t := store.APIToken{
		ID: id(r.ID), Name: r.Name, Hash: r.Hash, MaxValidFor: time.Duration(r.MaxValidForS) * time.Second,
		CreatedBy: r.CreatedBy, CreatedAt: at(r.CreatedAt), ExpiresAt: at(r.ExpiresAt), RevokedAt: utc(r.RevokedAt),
		Version: r.Version, MAC: r.Mac,
	}
	t.DecodeLists(r.Roles, r.Keysets, r.Zones, r.Scopes, r.Dataplanes)
	return t
}

func (t *tx) RevokeAPIToken(ctx context.Context, a store.APIToken) error {
	n, err := t.q.RevokeApiToken(ctx, dbsqlc.RevokeApiTokenParams{
		RevokedAt: micro(a.RevokedAt), Mac: a.MAC, ID: a.ID.String(), WasVersion: a.Version - 1,
	})
	return changed(n, err)
}

func (t *tx) InsertAuditEvent(ctx context.Context, e store.AuditEvent) error {
	return interpret(t.q.InsertAuditEvent(ctx, dbsqlc.InsertAuditEventParams{
		ID: e.ID.String(), At: e.At.UnixMicro(), Actor: e.Actor, Action: e.Action, Target: e.Target, Detail: e.Detail,
		RequestID: e.RequestID,
	}))
}

func (t *tx) AuditEvents(ctx context.Context, f store.AuditFilter, before uuid.UUID, limit int) ([]store.AuditEvent, error) {
	rows, err := t.q.ListAuditEvents(ctx, dbsqlc.ListAuditEventsParams{
		BeforeID: before.String(), ActionPrefix: f.ActionPrefix, Actor: f.Actor,
		After: since(f.After), Before: until(f.Before), MaxRows: int64(limit),
	})
	return mapRows(rows, func(r dbsqlc.AuditEvent) store.AuditEvent {
		return store.AuditEvent{
			ID: id(r.ID), At: at(r.At), Actor: r.Actor, Action: r.Action, Target: r.Target,
			Detail: r.Detail, RequestID: r.RequestID,
		}
	}), interpret(err)
}

func (t *tx) Issuance(ctx context.Context, jti uuid.UUID) (store.Issuance, error) {
	row, err := t.q.GetIssuance(ctx, jti.String())
	return toIssuance(row), interpret(err)
}

func toIssuance(r dbsqlc.Ledger) store.Issuance {
	return store.Issuance{
		JTI: id(r.Jti), KeysetID: id(r.KeysetID), Serial: int(r.Serial), Subject: r.Subject, Scopes: r.Scopes,
		IssuedAt: at(r.IssuedAt), ExpiresAt: at(r.ExpiresAt), Caller: r.Caller, Writer: id(r.Writer), Batch: r.Batch,
	}
}

func (t *tx) LedgerWriters(ctx context.Context) ([]uuid.UUID, error) {
	ids, err := t.q.ListLedgerWriters(ctx)
	return mapRows(ids, id), interpret(err)
}

func (t *tx) LedgerBatches(ctx context.Context, writer uuid.UUID, after int64, limit int) ([]store.LedgerBatch, error) {
	rows, err := t.q.ListLedgerBatches(ctx, dbsqlc.ListLedgerBatchesParams{
		Writer: writer.String(), AfterBatch: after, MaxRows: int64(limit),
	})
	return mapRows(rows, func(r dbsqlc.ListLedgerBatchesRow) store.LedgerBatch {
		return store.LedgerBatch{
			Writer: id(r.Writer), Batch: r.Batch, RowCount: int(r.RowCount),
			FirstJTI: id(r.FirstJti), LastJTI: id(r.LastJti), Hash: r.Hash, MAC: r.Mac,
		}
	}), interpret(err)
}

func (t *tx) BatchRows(ctx context.Context, b store.LedgerBatch) ([]store.Issuance, error) {
	rows, err := t.q.ListBatchRows(ctx, dbsqlc.ListBatchRowsParams{
		FirstJti: b.FirstJTI.String(), LastJti: b.LastJTI.String(), Writer: b.Writer.String(), Batch: b.Batch,
	})
	return mapRows(rows, toIssuance), interpret(err)
}

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

// id parses a stored UUID. What is not one becomes uuid.Nil, which no MAC and no
// lookup matches.
func id(s string) uuid.UUID {
	u, err := uuid.Parse(s)
	if err != nil {
		return uuid.Nil
	}
	return u
}

// since and until are bounds that a zero time leaves open.
func since(t time.Time) int64 {
	if t.IsZero() {
		return math.MinInt64
	}
	return t.UnixMicro()
}

func until(t time.Time) int64 {
	if t.IsZero() {
		return math.MaxInt64
	}
	return t.UnixMicro()
}

func at(us int64) time.Time { return time.UnixMicro(us).UTC() }

func utc(us *int64) time.Time {
	if us == nil {
		return time.Time{}
	}
	return at(*us)
}

// orNever returns the zero time for 0, which stands for none.
func orNever(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return at(us)
}

func micro(t time.Time) *int64 {
	if t.IsZero() {
		return nil
	}
	us := t.UnixMicro()
	return &us
}
