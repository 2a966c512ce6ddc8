package store

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
)

// LedgerFilter selects rows of the ledger; what is zero matches all.
type LedgerFilter struct {
	KeysetID uuid.UUID
	Serial   int
	Subject  string
	// Subjects are what a narrowed caller may reach: exact subjects, or with a
	// star at the end how they begin. Empty: all.
	Subjects     []string
	Caller       string
	IssuedAfter  time.Time // at it or after it
	IssuedBefore time.Time
	Live         bool // not expired by the database's clock
	Acceptable   bool // not expired longer than Leeway ago
	// FromJTI and ToJTI bound the jtis, the first one included.
	FromJTI, ToJTI uuid.UUID
}

func (f LedgerFilter) check() error {
	if err := checkText(append([]string{f.Subject, f.Caller}, f.Subjects...)...); err != nil {
		return fmt.Errorf("ledger filter: %w", err)
	}
	return nil
}

// jtiSlack is how far the time in a jti may be from the row's IssuedAt. They are
// the same to the millisecond; the rest is margin.
const jtiSlack = time.Minute

// JTIs returns bounds for the jtis of rows that match, the first one included.
// The ledger is partitioned by jti and has an index on it, and none on the time.
func (f LedgerFilter) JTIs() (from, to uuid.UUID) {
	to = uuid.Max
	if after := f.IssuedAfter; after.After(time.UnixMilli(0).Add(jtiSlack)) { // no jti is from before 1970
		from = FirstJTI(after.Add(-jtiSlack))
	}
	if !f.IssuedBefore.IsZero() {
		to = FirstJTI(f.IssuedBefore.Add(jtiSlack))
	}
	if bytes.Compare(f.FromJTI[:], from[:]) > 0 {
		from = f.FromJTI
	}
	if f.ToJTI != uuid.Nil && bytes.Compare(f.ToJTI[:], to[:]) < 0 {
		to = f.ToJTI
	}
	return from, to
}

// target names what a filter concerns, for the audit.
func (f LedgerFilter) target(ctx context.Context, tx Tx) (string, error) {
	if f.KeysetID == uuid.Nil {
		return "*", nil
	}
	name, err := keysetName(ctx, tx, f.KeysetID)
	if f.Serial == 0 {
		return name, err
	}
	return target(name, f.Serial), err
}

// describe returns what is set, for the audit.
func (f LedgerFilter) describe() map[string]any {
	set := map[string]any{}
	add := func(name string, value any, isSet bool) {
		if isSet {
			set[name] = value
		}
	}
	add("keyset", f.KeysetID, f.KeysetID != uuid.Nil)
	add("serial", f.Serial, f.Serial != 0)
	add("subject", f.Subject, f.Subject != "")
	add("subjects", f.Subjects, len(f.Subjects) > 0)
	add("caller", f.Caller, f.Caller != "")
	add("issued_after", f.IssuedAfter, !f.IssuedAfter.IsZero())
	add("issued_before", f.IssuedBefore, !f.IssuedBefore.IsZero())
	return set
}

// Issuances returns a page of the ledger's rows that match, newest first, those
// with a jti before the given one; uuid.Max begins. It reads on until the page is
// full, so a filter that matches little is slow unless IssuedAfter bounds it.
func (d *DB) Issuances(ctx context.Context, f LedgerFilter, before uuid.UUID, limit int) (rows []Issuance, err error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	err = d.engine.View(ctx, func(tx Tx) (err error) {
		rows, err = tx.Issuances(ctx, f, before, limit)
		return err
	})
	return rows, err
}

// LiveTokens returns how many tokens of each serial of a keyset have not expired,
// revoked ones included. Serials without any are left out.
func (d *DB) LiveTokens(ctx context.Context, keyset uuid.UUID) (live map[int]int64, err error) {
	err = d.engine.View(ctx, func(tx Tx) (err error) {
		live, err = tx.LiveTokens(ctx, keyset)
		return err
	})
	return live, err
}
