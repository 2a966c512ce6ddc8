package integration

import (
	"database/sql"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"testing"
	"time"
)

// recovery is how long a server may take to finish what others have left undone.
// It is several leases, after which it is known that they are dead.
const recovery = time.Minute

// TestKillDuringFirstStart kills servers while they set up the database and make
// the first keys. The one that is left alone has to finish what the others have
// begun: no keyset twice, no serial skipped, none without its successor.
func TestKillDuringFirstStart(t *testing.T) {
	for name, open := range map[string]func(*testing.T) database{
		"postgres": newPostgres,
		"sqlite":   func(t *testing.T) database { return newSQLite(t, t.TempDir()) },
	} {
		t.Run(name, func(t *testing.T) {
			whole := timeFirstStart(t, open(t))
			t.Logf("a first start takes %s", whole.Round(time.Millisecond))
			for round := range rounds(10, 30) {
				t.Run(strconv.Itoa(round), func(t *testing.T) {
					t.Parallel()
					interruptFirstStart(t, open(t), whole)
				})
			}
		})
	}
}

// firstSettings has RSA keys, which take long to make and give kills a chance to
// hit, and a short lease: after it, what a dead server held is free again.
func firstSettings() settings {
	return settings{leaseTTL: 2 * time.Second, keysets: []keyset{
		{"zone", "zone", "RS256"}, {"user", "user", "RS256"}, {"dataplane/default", "dataplane", "ES256"},
	}}
}

func timeFirstStart(t *testing.T, db database) time.Duration {
	t.Helper()
	in := install(t, db, firstSettings())
	start := time.Now()
	s := in.start(t)
	took := time.Since(start)
	s.stop(t)
	return took
}

func interruptFirstStart(t *testing.T, db database, whole time.Duration) {
	in := install(t, db, firstSettings())
	for range 1 + int(between(0, 3)) {
		s, moment := launch(t, in.config), between(0, whole)
		time.Sleep(moment)
		t.Logf("killed after %s", moment.Round(time.Millisecond))
		s.kill()
	}
	s := in.start(t)
	want := map[string][]string{}
	for _, k := range firstSettings().keysets {
		want[k.name] = []string{"1 active", "2 published"}
	}
	var got map[string][]string
	took := settles(recovery, func() bool {
		got = firstKeys(t, db)
		return maps.EqualFunc(got, want, slices.Equal)
	})
	if !maps.EqualFunc(got, want, slices.Equal) {
		t.Fatalf("%s after the server listened there are the keys %q, want %q", took, got, want)
	}
	t.Logf("complete %s after it listened", took.Round(time.Millisecond))
	eventually(t, 20*time.Second, "every key is served and the server is ready", func() bool {
		for name := range want {
			if len(s.keys(t, name).IDs()) != 2 {
				return false
			}
		}
		return s.ready(t) == http.StatusOK
	})
	s.stop(t)
}

// firstKeys returns serial and state of every key, by keyset.
func firstKeys(t *testing.T, db database) map[string][]string {
	t.Helper()
	got := map[string][]string{}
	query := "SELECT s.name, k.serial, k.state FROM keysets s JOIN signing_keys k ON k.keyset_id = s.id ORDER BY s.name, k.serial"
	db.each(t, query, func(r *sql.Rows) error {
		var name, state string
		var serial int
		err := r.Scan(&name, &serial, &state)
		got[name] = append(got[name], fmt.Sprintf("%d %s", serial, state))
		return err
	})
	return got
}
