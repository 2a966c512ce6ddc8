package invariant

import (
	"context"
	"database/sql"
	"fmt"
	"time"
)

// data is what the checks look at.
type data struct {
	keysets []keyset
	keys    []key // by keyset and serial
	uses    []use
	deeds   []deed
}

type keyset struct {
	id, name, algorithm, backend string
	feeds                        int
}

type key struct {
	keyset                                       string // its ID
	name                                         string // "zone/3"
	serial                                       int
	role, state, algorithm, backend, label       string
	kid, thumbprint                              string // empty for NULL
	ref, public                                  []byte
	imported                                     bool
	created, published, activated, retired, gone stamp
	destroyed, trustedUntil, lastExpiry          stamp
}

// use is what the ledger says of a key.
type use struct {
	keyset    string // its ID
	serial    int
	tokens    int
	maxExpiry stamp
}

// deed is what the audit says of a key.
type deed struct{ actor, action, target string }

func (d *data) of(keyset string) []key {
	var keys []key
	for _, k := range d.keys {
		if k.keyset == keyset {
			keys = append(keys, k)
		}
	}
	return keys
}

func (d *data) key(keyset string, serial int) *key {
	for i := range d.keys {
		if d.keys[i].keyset == keyset && d.keys[i].serial == serial {
			return &d.keys[i]
		}
	}
	return nil
}

// person says whether somebody other than a replica did something to a key.
func (d *data) person(k *key, action string) bool {
	for _, e := range d.deeds {
		if e.action == action && e.target == k.name && !isReplica(e.actor) {
			return true
		}
	}
	return false
}

// load reads everything as it is at one moment: tests call it while replicas work.
func load(ctx context.Context, db *sql.DB) (*data, error) {
	tx, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
	if err != nil {
		return nil, fmt.Errorf("invariants: %w", err)
	}
	defer tx.Rollback() //nolint:errcheck // nothing was written
	d := &data{}
	for _, read := range []func(context.Context, *sql.Tx) error{d.loadKeysets, d.loadKeys, d.loadUses, d.loadDeeds} {
		if err := read(ctx, tx); err != nil {
			return nil, fmt.Errorf("invariants: %w", err)
		}
	}
	return d, nil
}

func (d *data) loadKeysets(ctx context.Context, tx *sql.Tx) error {
	const query = `SELECT id, name, algorithm, backend,
		(SELECT count(*) FROM revocation_feeds f WHERE f.keyset_id = keysets.id) FROM keysets ORDER BY name`
	return each(ctx, tx, query, func(rows *sql.Rows) error {
		var ks keyset
		err := rows.Scan(&ks.id, &ks.name, &ks.algorithm, &ks.backend, &ks.feeds)
		d.keysets = append(d.keysets, ks)
		return err
	})
}

func (d *data) loadKeys(ctx context.Context, tx *sql.Tx) error {
	const query = `SELECT k.keyset_id, coalesce(s.name, '?'), k.serial, k.role, k.state, k.algorithm, k.backend, k.label,
			coalesce(k.kid, ''), coalesce(k.thumbprint, ''), k.ref, k.public_key, k.imported, k.created_at, k.published_at,
			k.activated_at, k.retired_at, k.removed_at, k.destroyed_at, k.trusted_until, k.last_expiry
		FROM signing_keys k LEFT JOIN keysets s ON s.id = k.keyset_id ORDER BY k.keyset_id, k.serial`
	return each(ctx, tx, query, func(rows *sql.Rows) error {
		var k key
		var keyset string
		err := rows.Scan(&k.keyset, &keyset, &k.serial, &k.role, &k.state, &k.algorithm, &k.backend, &k.label,
			&k.kid, &k.thumbprint, &k.ref, &k.public, &k.imported, &k.created, &k.published,
			&k.activated, &k.retired, &k.gone, &k.destroyed, &k.trustedUntil, &k.lastExpiry)
		k.name = fmt.Sprintf("%s/%d", keyset, k.serial)
		d.keys = append(d.keys, k)
		return err
	})
}

func (d *data) loadUses(ctx context.Context, tx *sql.Tx) error {
	const query = `SELECT keyset_id, serial, count(*), max(expires_at) FROM ledger GROUP BY keyset_id, serial ORDER BY keyset_id, serial`
	return each(ctx, tx, query, func(rows *sql.Rows) error {
		var u use
		err := rows.Scan(&u.keyset, &u.serial, &u.tokens, &u.maxExpiry)
		d.uses = append(d.uses, u)
		return err
	})
}

func (d *data) loadDeeds(ctx context.Context, tx *sql.Tx) error {
	const query = `SELECT actor, action, target FROM audit_events WHERE action LIKE 'signing-key.%' ORDER BY at, id`
	return each(ctx, tx, query, func(rows *sql.Rows) error {
		var e deed
		err := rows.Scan(&e.actor, &e.action, &e.target)
		d.deeds = append(d.deeds, e)
		return err
	})
}

func each(ctx context.Context, tx *sql.Tx, query string, row func(*sql.Rows) error) error {
	rows, err := tx.QueryContext(ctx, query)
	if err != nil {
		return err
	}
	defer rows.Close() //nolint:errcheck // its error is that of rows.Err
	for rows.Next() {
		if err := row(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// stamp is a time as either engine keeps it, zero for NULL.
type stamp struct{ time.Time }

// Scan implements [sql.Scanner].
func (s *stamp) Scan(v any) error {
	switch v := v.(type) {
	case nil:
		s.Time = time.Time{}
	case int64:
		s.Time = time.UnixMicro(v)
	case time.Time:
		s.Time = v
	default:
		return fmt.Errorf("a time of type %T", v)
	}
	return nil
}
