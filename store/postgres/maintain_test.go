package postgres_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/zonemint/zonemint/store"
	"github.com/zonemint/zonemint/store/postgres/postgrestest"
)

const day = 24 * time.Hour

// week returns the name and the bounds of the ledger's partition of a moment.
func week(at time.Time) (name string, from, to time.Time) {
	from = at.UTC().Truncate(day)
	for from.Weekday() != time.Monday {
		from = from.Add(-day)
	}
	return "ledger_p" + from.Format("20060102"), from, from.Add(7 * day)
}

func (l ledger) partitions(t *testing.T) (names []string) {
	t.Helper()
	rows, err := l.sql.QueryContext(t.Context(), `SELECT inhrelid::regclass::text FROM pg_inherits
		WHERE inhparent = 'ledger'::regclass ORDER BY 1`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close() //nolint:errcheck // its error is that of rows.Err
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return names
}

// attach makes the partition of a past moment, as if time had gone by.
func (l ledger) attach(t *testing.T, at time.Time) (name string) {
	t.Helper()
	name, from, to := week(at)
	exec(t, l.sql, fmt.Sprintf("CREATE TABLE %s PARTITION OF ledger FOR VALUES FROM ('%s') TO ('%s')",
		name, store.FirstJTI(from), store.FirstJTI(to)))
	return name
}

func TestPartitionsAhead(t *testing.T) {
	t.Parallel()
	direct := postgrestest.New(t)
	l := openLedger(t, direct, direct)
	want := []string{"ledger_default"}
	for i := range 5 {
		name, _, _ := week(time.Now().Add(time.Duration(i) * 7 * day))
		want = append(want, name)
	}
	if got := l.partitions(t); !slices.Equal(got, want) {
		t.Fatalf("after the migration there are %v, want %v", got, want)
	}
	if _, err := l.record(t, 0); err != nil {
		t.Fatal(err)
	}
	if n := l.count(t, want[1]); n != 1 {
		t.Errorf("this week's partition has %d rows, want 1", n)
	}

	// Partitions that were not made in time: rows go to the default partition,
	// and their week stays there.
	for _, name := range want[1:] {
		exec(t, l.sql, "DROP TABLE "+name)
	}
	if _, err := l.record(t, 0); err != nil {
		t.Fatal(err)
	}
	m, err := l.db.Maintain(t.Context(), day)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(m.PartitionsMade, want[2:]) {
		t.Errorf("made %v, want %v", m.PartitionsMade, want[2:])
	}
	if _, err := l.record(t, 0); err != nil {
		t.Fatal(err)
	}
	if n := l.count(t, "ledger_default"); n != 2 {
		t.Errorf("the default partition has %d rows, want 2", n)
	}
}

func TestPartitionsForgotten(t *testing.T) {
	t.Parallel()
	direct := postgrestest.New(t)
	l := openLedger(t, direct, direct)
	const retention = 30 * day
	old := l.attach(t, time.Now().Add(-60*day))
	mixed := l.attach(t, time.Now().Add(-50*day))
	young := l.attach(t, time.Now().Add(-20*day))
	for _, ago := range []time.Duration{60 * day, 60 * day, 50 * day, 20 * day} {
		if _, err := l.record(t, ago); err != nil {
			t.Fatal(err)
		}
	}
	live, err := l.record(t, 50*day)
	if err != nil {
		t.Fatal(err)
	}
	exec(t, l.sql, fmt.Sprintf("UPDATE ledger SET expires_at = now() + interval '1 day' WHERE jti = '%s'", live))

	m, err := l.db.Maintain(t.Context(), retention)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(m.PartitionsForgotten, []string{old}) || m.RowsForgotten != 3 {
		t.Errorf("forgotten are %d rows and the partitions %v, want 3 and %s", m.RowsForgotten, m.PartitionsForgotten, old)
	}
	if got := l.partitions(t); slices.Contains(got, old) || !slices.Contains(got, mixed) || !slices.Contains(got, young) {
		t.Errorf("there are %v, want %s and %s kept", got, mixed, young)
	}
	if _, err := l.db.Issuance(t.Context(), live); err != nil {
		t.Errorf("the row of a token that lives on: %v", err)
	}
}

// TestMaintainGivesWay: while somebody reads the whole ledger no partition can
// be dropped, and issuing must not queue up behind the attempt.
func TestMaintainGivesWay(t *testing.T) {
	t.Parallel()
	direct := postgrestest.New(t)
	l := openLedger(t, direct, direct)
	l.attach(t, time.Now().Add(-60*day))
	reader, err := l.sql.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Rollback() //nolint:errcheck // it only reads
	if _, err := reader.ExecContext(t.Context(), "SELECT count(*) FROM ledger"); err != nil {
		t.Fatal(err)
	}
	if _, err := l.db.Maintain(t.Context(), 30*day); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("maintenance beside a reader: %v, want unavailable", err)
	}
	if _, err := l.record(t, 0); err != nil {
		t.Errorf("issuing beside a reader: %v", err)
	}
	if err := reader.Rollback(); err != nil {
		t.Fatal(err)
	}
	m, err := l.db.Maintain(t.Context(), 30*day)
	if err != nil || len(m.PartitionsForgotten) != 1 {
		t.Errorf("maintenance after the reader: %+v, %v", m, err)
	}
}
