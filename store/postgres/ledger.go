package postgres

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/zonemint/zonemint/store"
	"github.com/zonemint/zonemint/store/postgres/dbsqlc"
)

// expiryStep is how much further than needed last_expiry is raised, so that one
// update serves the batches of a while. It delays the removal of a retiring key
// by as much, which nobody notices.
const expiryStep = time.Minute

// AppendLedger implements [store.Engine].
func (e *Engine) AppendLedger(ctx context.Context, b store.LedgerBatch) (store.Refused, error) {
	if err := e.raise(ctx, b.Keys); err != nil {
		return store.Refused{}, err
	}
	p := params(&b)
	refused, err := e.append(ctx, &b, p)
	if err != nil || len(refused.Keys) == 0 {
		return refused, err
	}
	// Either a key may not sign, or it has a barrier, or its last_expiry is not
	// what this process remembers: an older database was restored. Look again,
	// once; against the first two it does not help, and they are rare.
	e.forget(refused.Keys)
	if err := e.raise(ctx, b.Keys); err != nil {
		return store.Refused{}, err
	}
	return e.append(ctx, &b, p)
}

func (e *Engine) append(ctx context.Context, b *store.LedgerBatch, p dbsqlc.AppendLedgerParams) (store.Refused, error) {
	// The connection comes first and apart: while there is none, nothing was
	// sent, and the outcome is known.
	conn, err := e.vital.Acquire(ctx)
	if err != nil {
		return store.Refused{}, interpret(err)
	}
	defer conn.Release()
	row, err := dbsqlc.New(conn).AppendLedger(ctx, p)
	if err != nil {
		return store.Refused{}, afterSend(err)
	}
	var r store.Refused
	for _, k := range b.Keys {
		if !slices.Contains(row.Signing, k.ID) {
			r.Keys = append(r.Keys, k.ID)
		}
	}
	for _, c := range b.Callers {
		if !slices.Contains(row.Calling, c) {
			r.Callers = append(r.Callers, c)
		}
	}
	return r, nil
}

// raise sees to it that last_expiry of keys covers the batch. It is a
// transaction of its own, before the batch: dying in between leaves a bound
// that is higher than it need be, which is harmless.
func (e *Engine) raise(ctx context.Context, keys []store.KeyUse) error {
	for _, k := range keys {
		e.mu.Lock()
		known := e.raised[k.ID]
		e.mu.Unlock()
		if !k.MaxExpiry.After(known) {
			continue
		}
		to, err := e.raiseKey(ctx, k)
		if errors.Is(err, pgx.ErrNoRows) {
			continue // no such key: the batch will be refused
		}
		if err != nil {
			return interpret(err)
		}
		e.mu.Lock()
		e.raised[k.ID] = to
		e.mu.Unlock()
	}
	return nil
}

// raiseKey returns what last_expiry of a key is after it, which another replica
// may have raised far enough.
func (e *Engine) raiseKey(ctx context.Context, k store.KeyUse) (time.Time, error) {
	q := dbsqlc.New(e.vital)
	last, err := q.GetLastExpiry(ctx, k.ID)
	if err != nil || !k.MaxExpiry.After(last) {
		return last, err
	}
	to := k.MaxExpiry.Add(expiryStep)
	return to, q.RaiseLastExpiry(ctx, dbsqlc.RaiseLastExpiryParams{ID: k.ID, Expiry: to})
}

func (e *Engine) forget(keys []uuid.UUID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, id := range keys {
		delete(e.raised, id)
	}
}

// params turns rows into columns, which is how they travel.
func params(b *store.LedgerBatch) dbsqlc.AppendLedgerParams {
	n := len(b.Rows)
	p := dbsqlc.AppendLedgerParams{
		KeyIds: make([]uuid.UUID, 0, len(b.Keys)), MaxExpiries: make([]time.Time, 0, len(b.Keys)),
		MinIssueds: make([]time.Time, 0, len(b.Keys)),
		CallerIds:  append([]uuid.UUID{}, b.Callers...),
		Writer:     b.Writer, Batch: b.Batch, Hash: b.Hash, Mac: b.MAC, FirstJti: b.FirstJTI, LastJti: b.LastJTI,
		Jtis: make([]uuid.UUID, n), KeysetIds: make([]uuid.UUID, n), Serials: make([]int32, n),
		Subjects: make([]string, n), Scopes: make([]string, n), IssuedAts: make([]time.Time, n),
		ExpiresAts: make([]time.Time, n), Callers: make([]string, n),
	}
	for _, k := range b.Keys {
		p.KeyIds, p.MaxExpiries = append(p.KeyIds, k.ID), append(p.MaxExpiries, k.MaxExpiry)
		p.MinIssueds = append(p.MinIssueds, k.MinIssued)
	}
	for i := range b.Rows {
		r := &b.Rows[i]
		p.Jtis[i], p.KeysetIds[i], p.Serials[i] = r.JTI, r.KeysetID, int32(r.Serial)
		p.Subjects[i], p.Scopes[i], p.Callers[i] = r.Subject, r.Scopes, r.Caller
		p.IssuedAts[i], p.ExpiresAts[i] = r.IssuedAt, r.ExpiresAt
	}
	return p
}
