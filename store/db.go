package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/tink-crypto/tink-go/v2/tink"
)

// DB is the store. It is safe for concurrent use.
type DB struct {
	engine Engine
	seal   sealer
}

// Open returns the store on an engine whose schema is up to date. On the first
// start it binds the database to the instance key that mac belongs to; later it
// fails with [ErrWrongInstanceKey] if mac belongs to another one.
func Open(ctx context.Context, engine Engine, mac tink.MAC) (*DB, error) {
	d := &DB{engine: engine, seal: sealer{mac: mac}}
	in, err := d.installation(ctx)
	if err != nil {
		return nil, fmt.Errorf("opening the store: %w", err)
	}
	if d.seal.check(keyCheck(in.ID), in.KeyCheck, "") != nil {
		return nil, ErrWrongInstanceKey
	}
	d.seal.installation = in.ID
	if err := d.renewFeeds(ctx); err != nil {
		return nil, fmt.Errorf("opening the store: %w", err)
	}
	return d, nil
}

func keyCheck(installation uuid.UUID) *encoding { return encodingOf("installation").id(installation) }

// installation reads the installation's row and makes it on the first start.
// Two first starts at once both read the row of the one that came first.
func (d *DB) installation(ctx context.Context) (in Installation, err error) {
	read := func(tx Tx) (err error) {
		in, err = tx.Installation(ctx)
		return err
	}
	if err = d.engine.View(ctx, read); !errors.Is(err, ErrNotFound) {
		return in, err
	}
	err = d.engine.Update(ctx, func(tx Tx) error {
		first := Installation{ID: uuid.New()}
		if first.KeyCheck, err = d.seal.seal(keyCheck(first.ID)); err != nil {
			return err
		}
		return tx.InsertInstallation(ctx, first)
	})
	if err != nil {
		return in, err
	}
	err = d.engine.View(ctx, read)
	return in, err
}

// Close ends all connections.
func (d *DB) Close() error { return d.engine.Close() }

// Linger is how long a group commit should wait for company under load.
func (d *DB) Linger() time.Duration { return d.engine.Linger() }

// Heartbeat renews a replica's lease.
func (d *DB) Heartbeat(ctx context.Context, r Replica, ttl time.Duration) (Beat, error) {
	return d.engine.Heartbeat(ctx, r, ttl)
}

// Leave ends a replica's lease.
func (d *DB) Leave(ctx context.Context, replica uuid.UUID) error { return d.engine.Leave(ctx, replica) }

// Maintain makes room for coming ledger rows and forgets those whose tokens
// expired longer than retention ago, and revocations of expired tokens.
func (d *DB) Maintain(ctx context.Context, retention time.Duration) (Maintained, error) {
	return d.engine.Maintain(ctx, retention)
}

// Now returns the database's clock.
func (d *DB) Now(ctx context.Context) (now time.Time, err error) {
	err = d.engine.View(ctx, func(tx Tx) (err error) {
		now, err = tx.Now(ctx)
		return err
	})
	return now, err
}

// deed is what the audit says of an administrative act. The zero deed is none:
// nothing was changed.
type deed struct {
	action string // "keyset.create"
	target string
	detail map[string]any
}

// act runs an administrative act and its audit event in one transaction.
func (d *DB) act(ctx context.Context, by Actor, fn func(tx Tx, now time.Time) (deed, error)) error {
	return d.acts(ctx, by, func(tx Tx, now time.Time) ([]deed, error) {
		done, err := fn(tx, now)
		return []deed{done}, err
	})
}

// acts does the same for an act of several parts.
func (d *DB) acts(ctx context.Context, by Actor, fn func(tx Tx, now time.Time) ([]deed, error)) error {
	return d.engine.Update(ctx, func(tx Tx) error {
		if err := renewFeeds(ctx, tx); err != nil { // see changeFeeds
			return err
		}
		now, err := tx.Now(ctx)
		if err != nil {
			return err
		}
		done, err := fn(tx, now)
		if err != nil {
			return err
		}
		// After the act, which may have closed gates: whoever holds an API token's
		// row while waiting at a gate can meet a batch and the token's revocation
		// that wait for each other and for it.
		if err := mayAct(ctx, tx, by); err != nil {
			return err
		}
		return audit(ctx, tx, by, done, now)
	})
}

// mayAct checks the API token that the actor showed, and holds off its revocation
// until the transaction ends.
func mayAct(ctx context.Context, tx Tx, by Actor) error {
	if by.TokenID == uuid.Nil {
		return nil
	}
	if may, err := tx.MayCall(ctx, by.TokenID); err != nil || !may {
		return cmp.Or(err, ErrCallerRefused)
	}
	return nil
}

func audit(ctx context.Context, tx Tx, by Actor, done []deed, now time.Time) error {
	for _, part := range done {
		if part.action == "" {
			continue
		}
		event, err := newEvent(by, part, now)
		if err != nil {
			return err
		}
		if err := tx.InsertAuditEvent(ctx, event); err != nil {
			return err
		}
	}
	return nil
}

// Note adds an event to the audit for which there is no other change: something
// that a replica did by itself.
func (d *DB) Note(ctx context.Context, by Actor, action, target string, detail map[string]any) error {
	err := d.act(ctx, by, func(Tx, time.Time) (deed, error) { return deed{action, target, detail}, nil })
	if err != nil {
		return fmt.Errorf("audit event %s: %w", action, err)
	}
	return nil
}

// AuditEvents returns a page of the audit, newest first, the events before the
// one with the ID before; uuid.Max begins.
func (d *DB) AuditEvents(ctx context.Context, f AuditFilter, before uuid.UUID, limit int) (events []AuditEvent, err error) {
	if err := checkText(f.ActionPrefix, f.Actor); err != nil {
		return nil, fmt.Errorf("audit filter: %w", err)
	}
	err = d.engine.View(ctx, func(tx Tx) (err error) {
		events, err = tx.AuditEvents(ctx, f, before, limit)
		return err
	})
	return events, err
}

// Revoked says whether a jti of a keyset is revoked.
func (d *DB) Revoked(ctx context.Context, keyset uuid.UUID, jti string) (revoked bool, err error) {
	err = d.engine.View(ctx, func(tx Tx) (err error) {
		revoked, err = tx.Revoked(ctx, keyset, jti)
		return err
	})
	return revoked, err
}
