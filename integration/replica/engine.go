package main

import (
	"context"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/zonemint/zonemint/store"
)

// engine is a database engine that ends the process just before or just after a
// transaction is committed. The points are named by what the audit calls the acts
// in it: "before:signing-key.published", "after:keyset.rotate". Two kinds of
// transactions have no event of their own, "claim" and "heartbeat".
type engine struct {
	store.Engine
	faults *faults
}

// Update implements [store.Engine].
func (e engine) Update(ctx context.Context, fn func(store.Tx) error) error {
	var acts []string
	err := e.Engine.Update(ctx, func(inner store.Tx) error {
		t := &tx{Tx: inner}
		if err := fn(t); err != nil {
			return err
		}
		acts = t.acts
		e.faults.at(prefixed("before:", acts)...)
		return nil
	})
	if err == nil {
		e.faults.at(prefixed("after:", acts)...)
	}
	return err
}

// Heartbeat implements [store.Engine].
func (e engine) Heartbeat(ctx context.Context, r store.Replica, ttl time.Duration) (store.Beat, error) {
	e.faults.at("before:heartbeat")
	b, err := e.Engine.Heartbeat(ctx, r, ttl)
	if err == nil {
		e.faults.at("after:heartbeat")
	}
	return b, err
}

func prefixed(prefix string, acts []string) []string {
	points := make([]string, len(acts))
	for i, act := range acts {
		points[i] = prefix + act
	}
	return points
}

// tx is a transaction that learns what is done in it.
type tx struct {
	store.Tx
	acts []string // without repetition
}

// InsertAuditEvent implements [store.Tx].
func (t *tx) InsertAuditEvent(ctx context.Context, e store.AuditEvent) error {
	t.note(e.Action)
	return t.Tx.InsertAuditEvent(ctx, e)
}

// ClaimSigningKey implements [store.Tx].
func (t *tx) ClaimSigningKey(ctx context.Context, id, owner uuid.UUID, ttl time.Duration) (int64, error) {
	t.note("claim")
	return t.Tx.ClaimSigningKey(ctx, id, owner, ttl)
}

func (t *tx) note(act string) {
	if !slices.Contains(t.acts, act) {
		t.acts = append(t.acts, act)
	}
}
