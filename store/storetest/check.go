package storetest

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zonemint/zonemint/store"
)

const retention = 30 * 24 * time.Hour

func (w *world) check(t testing.TB) store.LedgerCheck {
	t.Helper()
	told := 0
	c, err := w.db.CheckLedger(t.Context(), retention, func(store.LedgerCheck) { told++ })
	noErr(t, err)
	if told < c.Writers {
		t.Errorf("progress was told %d times for %d writers", told, c.Writers)
	}
	return c
}

// wantSound wants the ledger to pass its check.
func (w *world) wantSound(t testing.TB) store.LedgerCheck {
	t.Helper()
	c := w.check(t)
	if len(c.Faults) > 0 || c.Pruned > 0 {
		t.Errorf("the check found %d pruned batches and the faults %q", c.Pruned, c.Faults)
	}
	return c
}

// wantFault wants the check to find something.
func (w *world) wantFault(t testing.TB, what string) {
	t.Helper()
	faults := w.check(t).Faults
	if !slices.ContainsFunc(faults, func(f string) bool { return strings.Contains(f, what) }) {
		t.Errorf("the check found %q, want a fault that says %q", faults, what)
	}
}

// chains fills the ledger with two chains of three batches.
func (w *world) chains(t testing.TB) {
	t.Helper()
	key := w.activeKey(t, "zone")
	for range 2 {
		link := newChain(t)
		for n := range 3 {
			link = w.record(t, link, rows(t, key, n+2))
		}
	}
}

func testCheckLedger(t *testing.T, h Harness) {
	w := newWorld(t, h)
	if c := w.wantSound(t); c.Writers != 0 || c.Batches != 0 {
		t.Errorf("the check of an empty ledger says %+v", c)
	}
	w.chains(t)
	if c := w.wantSound(t); c.Writers != 2 || c.Batches != 6 || c.Rows != 18 {
		t.Errorf("the check says %+v, want 2 writers, 6 batches, 18 rows", c)
	}
	// More batches than are read at a time.
	key, link := w.activeKey(t, "user"), newChain(t)
	w.exec(t, "DELETE FROM ledger")
	w.exec(t, "DELETE FROM ledger_batches")
	for range 510 {
		link = w.record(t, link, rows(t, key, 1))
	}
	if c := w.wantSound(t); c.Batches != 510 || c.Rows != 510 {
		t.Errorf("the check says %+v, want 510 batches of a row", c)
	}
}

// testCheckLedgerFinds edits each column of a row and of a batch.
func testCheckLedgerFinds(t *testing.T, h Harness) {
	w := newWorld(t, h)
	w.chains(t)
	for table, row := range map[string]string{
		"ledger":         "jti = (SELECT jti FROM ledger WHERE batch = 2 ORDER BY jti LIMIT 1)",
		"ledger_batches": "batch = 2 AND writer = (SELECT writer FROM ledger_batches ORDER BY writer LIMIT 1)",
	} {
		edits := w.edits(t, table, nil)
		for _, column := range slices.Sorted(maps.Keys(edits)) {
			restore := w.backup(t, table)
			if n := w.exec(t, "UPDATE %s SET %s = %s WHERE %s", table, column, edits[column], row); n != 1 {
				t.Fatalf("%d rows edited, want 1", n)
			}
			// When a batch was committed is a remark, for people.
			if found := len(w.check(t).Faults) > 0; found == (column == "committed_at") {
				t.Errorf("%s.%s was edited; found: %t", table, column, found)
			}
			restore()
		}
	}
	w.wantSound(t)
}

func testCheckLedgerMissing(t *testing.T, h Harness) {
	w := newWorld(t, h)
	w.chains(t)
	rows, batches := w.backup(t, "ledger"), w.backup(t, "ledger_batches")
	restore := func() {
		rows()
		batches()
		w.wantSound(t)
	}
	const writer = "writer = (SELECT writer FROM ledger_batches ORDER BY writer LIMIT 1)"

	w.exec(t, "DELETE FROM ledger WHERE jti = (SELECT jti FROM ledger WHERE batch = 2 ORDER BY jti LIMIT 1)")
	w.wantFault(t, "has 2 rows, was recorded with 3")
	restore()

	w.exec(t, "DELETE FROM ledger_batches WHERE batch = 2 AND %s", writer)
	w.wantFault(t, "follows batch 1")
	restore()

	w.exec(t, "DELETE FROM ledger_batches WHERE batch = 2 AND %s", writer)
	w.exec(t, "UPDATE ledger_batches SET batch = 2 WHERE batch = 3 AND %s", writer)
	w.exec(t, "DELETE FROM ledger WHERE batch = 2 AND %s", writer)
	w.exec(t, "UPDATE ledger SET batch = 2 WHERE batch = 3 AND %s", writer)
	w.wantFault(t, "does not match its MAC")
	restore()

	w.plant(t, "ledger_batches", "batch = 3 AND "+writer, map[string]string{"batch": "4"})
	w.wantFault(t, "does not match its MAC")
	restore()

	// Two batches whose rows changed places keep their own MACs.
	w.exec(t, "UPDATE ledger SET subject = 'swapped' WHERE batch = 1 AND %s", writer)
	w.wantFault(t, "its rows are not those it was recorded with")
	restore()
}

// testCheckLedgerPruned: what retention takes is not a fault, anything else is.
func testCheckLedgerPruned(t *testing.T, h Harness) {
	w := newWorld(t, h)
	key := w.activeKey(t, "zone")
	old := time.Now().Add(-2 * retention)
	link := w.record(t, newChain(t), rowsAt(t, key, 2, old, time.Hour))
	link = w.record(t, link, append(rowsAt(t, key, 1, old, time.Hour), rowsAt(t, key, 1, old, 3*retention)...))
	w.record(t, link, rows(t, key, 2))
	w.wantSound(t)

	w.maintain(t)
	if c := w.check(t); len(c.Faults) > 0 || c.Pruned != 2 || c.Batches != 3 || c.Rows != 3 {
		t.Errorf("after a prune the check says %+v", c)
	}
	w.exec(t, "UPDATE ledger_batches SET hash = mac WHERE batch = 1")
	w.wantFault(t, "batch 1")
}
