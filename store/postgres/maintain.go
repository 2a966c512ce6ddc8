package postgres

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/zonemint/zonemint/store"
	"github.com/zonemint/zonemint/store/postgres/dbsqlc"
)

// Partitions of the ledger hold a week each, from Monday, and are made
// four weeks ahead.
const (
	partitionSpan  = 7 * 24 * time.Hour
	partitionAhead = 4
	partitionName  = "ledger_p"
	dateLayout     = "20060102"
)

const forever = time.Duration(math.MaxInt64)

// pruneStep bounds what one transaction of a prune deletes.
const pruneStep = 5000

// maintenanceLock is the advisory lock under which replicas take turns at
// maintaining the ledger. Any number would do; this one is "zonemint" in ASCII.
const maintenanceLock = 0x7a6f6e656d696e74

// Maintain implements [store.Engine]. It makes partitions ahead, drops those
// whose tokens have all been expired for longer than retention, and deletes
// such rows from the others. Revocations of expired tokens go too. Each step is a
// short transaction, and what fails does not keep the rest from being done.
func (e *Engine) Maintain(ctx context.Context, retention time.Duration) (m store.Maintained, err error) {
	now, err := dbsqlc.New(e.pool).Now(ctx)
	if err != nil {
		return m, fmt.Errorf("maintaining the ledger: %w", interpret(err))
	}
	var errs []error
	check := func(what string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", what, interpret(err)))
		}
	}
	check("making room in the ledger", e.makeRoom(ctx, now, &m))
	if retention != forever {
		check("forgetting old rows of the ledger", e.forgetIssuances(ctx, now.Add(-retention), &m))
	}
	check("forgetting revocations of expired tokens", e.forgetRevocations(ctx, now.Add(-store.RevocationGrace), &m))
	return m, errors.Join(errs...)
}

func (e *Engine) makeRoom(ctx context.Context, now time.Time, m *store.Maintained) error {
	var made []string
	err := e.maintain(ctx, func(t pgx.Tx) (err error) {
		if made, err = makePartitions(ctx, t, now); err != nil {
			return err
		}
		return dbsqlc.New(t).ForgetReplicas(ctx)
	})
	if err == nil {
		m.PartitionsMade = made
	}
	return err
}

// maintain runs a step of maintenance. Whoever waits for a lock on the ledger
// has issuing wait behind, so a step that does not get its locks soon, because
// somebody reads the whole ledger, gives up until the next run.
func (e *Engine) maintain(ctx context.Context, step func(pgx.Tx) error) error {
	return pgx.BeginFunc(ctx, e.pool, func(t pgx.Tx) error {
		if _, err := t.Exec(ctx, `SELECT pg_advisory_xact_lock($1)`, int64(maintenanceLock)); err != nil {
			return err
		}
		if _, err := t.Exec(ctx, `SET LOCAL lock_timeout = '250ms'`); err != nil {
			return err
		}
		return step(t)
	})
}

func makePartitions(ctx context.Context, t pgx.Tx, now time.Time) (made []string, err error) {
	from := now.UTC().Truncate(partitionSpan)
	for range partitionAhead + 1 {
		p := partition{name: partitionName + from.Format(dateLayout), from: from, to: from.Add(partitionSpan)}
		ok, err := p.make(ctx, t)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
		if ok {
			made = append(made, p.name)
		}
		from = p.to
	}
	return made, nil
}

// partition is a part of the ledger. The default one has neither from nor to.
type partition struct {
	name     string
	from, to time.Time
}

func (p partition) exists(ctx context.Context, t pgx.Tx) (exists bool, err error) {
	err = t.QueryRow(ctx, `SELECT to_regclass($1) IS NOT NULL`, p.name).Scan(&exists)
	return exists, err
}

// make makes the partition, unless it exists or the default partition holds
// rows of its range already; those stay there, where they are found and
// forgotten as well. To attach a table locks out less than to make a partition:
// issuing goes on.
func (p partition) make(ctx context.Context, t pgx.Tx) (bool, error) {
	if exists, err := p.exists(ctx, t); err != nil || exists {
		return false, err
	}
	first, end := store.FirstJTI(p.from), store.FirstJTI(p.to)
	var strays bool
	err := t.QueryRow(ctx, `SELECT EXISTS (SELECT FROM ledger_default WHERE jti >= $1 AND jti < $2)`, first, end).Scan(&strays)
	if err != nil || strays {
		return false, err
	}
	table := pgx.Identifier{p.name}.Sanitize()
	if _, err := t.Exec(ctx, `CREATE TABLE `+table+` (LIKE ledger)`); err != nil {
		return false, err
	}
	_, err = t.Exec(ctx, fmt.Sprintf(`ALTER TABLE ledger ATTACH PARTITION %s FOR VALUES FROM ('%s') TO ('%s')`, table, first, end))
	return err == nil, err
}

func (e *Engine) forgetIssuances(ctx context.Context, before time.Time, m *store.Maintained) error {
	parts, err := e.partitions(ctx, before)
	if err != nil {
		return err
	}
	for _, p := range parts {
		for more := true; more; {
			var dropped bool
			var rows int64
			err := e.maintain(ctx, func(t pgx.Tx) (err error) {
				dropped, rows, err = p.forget(ctx, t, before)
				return err
			})
			if err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
			m.RowsForgotten += rows
			if dropped {
				m.PartitionsForgotten = append(m.PartitionsForgotten, p.name)
			}
			more = !dropped && rows == pruneStep
		}
	}
	return nil
}

// partitions lists the parts of the ledger that may have rows of tokens that
// expired before a moment, oldest first.
func (e *Engine) partitions(ctx context.Context, before time.Time) ([]partition, error) {
	rows, err := e.pool.Query(ctx, `SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
		WHERE i.inhparent = 'ledger'::regclass ORDER BY c.relname`)
	if err != nil {
		return nil, err
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, err
	}
	var parts []partition
	for _, name := range names {
		// What is not named by a date is the default partition, or was attached
		// by somebody else: it is never dropped.
		p := partition{name: name}
		if date, ok := strings.CutPrefix(name, partitionName); ok {
			if from, err := time.Parse(dateLayout, date); err == nil {
				p.from, p.to = from, from.Add(partitionSpan)
			}
		}
		if p.from.Before(before) {
			parts = append(parts, p)
		}
	}
	return parts, nil
}

// forget drops the partition if its whole week, and the life of every token in
// it, ended before a moment. Nothing is written to such a week any more, so
// there is no race with issuing. Otherwise it deletes some of the rows whose
// tokens did.
func (p partition) forget(ctx context.Context, t pgx.Tx, before time.Time) (dropped bool, rows int64, err error) {
	if exists, err := p.exists(ctx, t); err != nil || !exists {
		return false, 0, err // another replica was first
	}
	table := pgx.Identifier{p.name}.Sanitize()
	if !p.to.IsZero() && !p.to.After(before) {
		var live bool
		err = t.QueryRow(ctx, `SELECT EXISTS (SELECT FROM `+table+` WHERE expires_at >= $1),
			(SELECT count(*) FROM `+table+`)`, before).Scan(&live, &rows)
		if err != nil {
			return false, 0, err
		}
		if !live {
			_, err = t.Exec(ctx, `DROP TABLE `+table)
			return err == nil, rows, err
		}
	}
	// By way of the keys, so that the index finds the rows and those that are
	// kept are not read.
	tag, err := t.Exec(ctx, `DELETE FROM `+table+` WHERE jti IN (
		SELECT l.jti FROM signing_keys k JOIN `+table+` l ON l.keyset_id = k.keyset_id AND l.serial = k.serial
		WHERE l.expires_at < $1 AND l.issued_at < $1 LIMIT $2)`, before, pruneStep)
	return false, tag.RowsAffected(), err
}
