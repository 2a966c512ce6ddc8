package bench

import (
	"context"
	"database/sql"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/google/uuid"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx", to fill a database in bulk
	_ "modernc.org/sqlite"             // the driver "sqlite", for the same

	"github.com/zonemint/zonemint/cmd/zonemint/config"
)

// rounds is how often the young and the old database are measured by turns, so
// that another load on the machine hits both alike.
const rounds = 8

// age measures whether issuing gets slower as the ledger grows and keys come and
// go: two servers, one on an empty database and one on a database with rows of
// s.LedgerRows live tokens and s.OldSerials keys that have ended.
func (s *session) age(ctx context.Context, name string, db config.Database) (err error) {
	if s.LedgerRows == 0 {
		return nil
	}
	young, drop, err := s.aged(ctx, name, db, 0, 0)
	if err != nil {
		return err
	}
	defer drop()
	old, drop, err := s.aged(ctx, name, db, s.LedgerRows, s.OldSerials)
	if err != nil {
		return err
	}
	defer drop()
	for _, connections := range []int{1, 32} {
		if err := s.compareAges(ctx, name, young, old, connections); err != nil {
			return err
		}
	}
	return nil
}

// compareAges reports the median of the rounds.
func (s *session) compareAges(ctx context.Context, name string, young, old *target, connections int) error {
	var all [2][]figures
	for range rounds {
		for i, t := range []*target{young, old} {
			f, err := s.drive(ctx, request{http.MethodPost, t.base + issuePath, t.token, issueBody("ES256")}, connections)
			if err != nil {
				return err
			}
			all[i] = append(all[i], f)
		}
	}
	median := func(fs []figures, of func(figures) float64) float64 {
		values := make([]float64, len(fs))
		for i, f := range fs {
			values[i] = of(f)
		}
		slices.Sort(values)
		return (values[(len(values)-1)/2] + values[len(values)/2]) / 2
	}
	p50 := func(f figures) float64 { return milliseconds(f.p50) }
	p99 := func(f figures) float64 { return milliseconds(f.p99) }
	for i, what := range []string{"empty ledger", fmt.Sprintf("ledger of %d rows, %d old serials", s.LedgerRows, s.OldSerials)} {
		r := Result{Name: "tokens, by age", Store: name, Algorithm: "ES256", Connections: connections, Client: all[i][0].client,
			P50: median(all[i], p50), P99: median(all[i], p99), Note: what}
		if i == 1 {
			r.Note += fmt.Sprintf(": p50 is %.2f times that of the empty one", r.P50/median(all[0], p50))
		}
		s.emit(r)
	}
	return nil
}

// aged starts a server on a database of its own that has seen so much. The
// function that it returns stops the server and drops the database.
func (s *session) aged(ctx context.Context, name string, db config.Database, rows, serials int) (*target, func(), error) {
	var undo []func()
	drop := func() {
		for _, fn := range slices.Backward(undo) {
			fn()
		}
	}
	if name == "postgres" {
		env, end, err := s.createDatabase(ctx)
		if err != nil {
			return nil, drop, err
		}
		db.PostgresEnv, undo = env, append(undo, end)
	}
	t, err := start(ctx, s.dir, db, nil)
	if err != nil {
		drop()
		return nil, drop, err
	}
	undo = append(undo, func() { _ = t.stop() }) // what it measured is known
	if err := s.fill(ctx, name, db, t, rows, serials); err != nil {
		drop()
		return nil, drop, fmt.Errorf("filling the %s database: %w", name, err)
	}
	return t, drop, nil
}

// createDatabase creates a database beside the one that is there to be used, and
// returns the variable that holds its URL.
func (s *session) createDatabase(ctx context.Context) (env string, drop func(), err error) {
	admin, err := sql.Open("pgx", s.Postgres)
	if err != nil {
		return "", nil, err
	}
	defer func() { _ = admin.Close() }()
	name := "zonemint_bench_" + strings.ReplaceAll(uuid.NewString(), "-", "")
	if _, err := admin.ExecContext(ctx, "CREATE DATABASE "+name); err != nil {
		return "", nil, err
	}
	u, err := url.Parse(s.Postgres)
	if err != nil {
		return "", nil, err
	}
	u.Path = "/" + name
	env = strings.ToUpper(name)
	return env, func() {
		if admin, err := sql.Open("pgx", s.Postgres); err == nil {
			defer func() { _ = admin.Close() }()
			_, _ = admin.ExecContext(context.WithoutCancel(ctx), "DROP DATABASE "+name+" WITH (FORCE)") // or it stays, in a database for benchmarks
		}
	}, os.Setenv(env, u.String())
}

// fillStep is how many rows are written in one transaction.
const fillStep = 250_000

// fill writes serials that have ended, and rows of live tokens that they signed
// within the last day.
func (s *session) fill(ctx context.Context, name string, db config.Database, t *target, rows, serials int) error {
	if rows == 0 {
		return nil
	}
	driver, source := "pgx", os.Getenv(db.PostgresEnv)
	if name == "sqlite" {
		driver, source = "sqlite", "file:"+t.path+"?_pragma=busy_timeout(60000)&_pragma=cache_size(-500000)"
	}
	conn, err := sql.Open(driver, source)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if _, err := conn.ExecContext(ctx, fillers(name).serials, serials); err != nil {
		return err
	}
	for done := 0; done < rows; done += fillStep {
		if _, err := conn.ExecContext(ctx, fillers(name).rows, done, min(fillStep, rows-done), rows, serials); err != nil {
			return err
		}
		if (done/fillStep)%8 == 7 {
			s.say("%s: %d of %d rows written", name, done+fillStep, rows)
		}
	}
	_, err = conn.ExecContext(ctx, "ANALYZE")
	return err
}

// filler has the statements that make a database old. Serials end in state
// removed: their rows are not read when tokens are issued, so their MACs do not
// matter.
type filler struct{ serials, rows string }

func fillers(store string) filler {
	if store == "sqlite" {
		return filler{
			serials: `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
				INSERT INTO signing_keys (id, keyset_id, serial, role, state, algorithm, backend, label, kid, thumbprint, public_key, created_at, version, mac)
				SELECT lower(hex(randomblob(16))), k.id, 2 + i, 'primary', 'removed', 'ES256', 'local', 'old-' || i, 'old-' || i, 'old-' || i, x'00', 0, 1, x'00'
				FROM n, keysets k WHERE k.name = 'es256'`,
			rows: `WITH RECURSIVE n(i) AS (SELECT ?1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1 + ?2 - 1),
				row AS (SELECT i, CAST(unixepoch('subsec') * 1000 AS integer) - 86400000 + i * 86400000 / ?3 AS ms FROM n)
				INSERT INTO ledger (jti, keyset_id, serial, subject, scopes, issued_at, expires_at, caller, writer, batch)
				SELECT substr(printf('%012x', ms), 1, 8) || '-' || substr(printf('%012x', ms), 9) || '-7' || printf('%03x', i % 4096) || '-8' ||
				       printf('%03x', i / 4096 % 4096) || '-' || printf('%012x', i), k.id, 3 + i % ?4, 'zone-' || i % 1000, '["ingress","egress"]',
				       ms * 1000, ms * 1000 + 2592000000000, 'api-token/bench', '00000000-0000-7000-8000-000000000000', 0
				FROM row, keysets k WHERE k.name = 'es256'`,
		}
	}
	return filler{
		serials: `INSERT INTO signing_keys (id, keyset_id, serial, role, state, algorithm, backend, label, kid, thumbprint, public_key, created_at, version, mac)
			SELECT gen_random_uuid(), k.id, 2 + i, 'primary', 'removed', 'ES256', 'local', 'old-' || i, 'old-' || i, 'old-' || i, '\x00', now(), 1, '\x00'
			FROM generate_series(1, $1::integer) i, keysets k WHERE k.name = 'es256'`,
		rows: `INSERT INTO ledger (jti, keyset_id, serial, subject, scopes, issued_at, expires_at, caller, writer, batch)
			SELECT (lpad(to_hex(ms), 12, '0') || '7' || lpad(to_hex(i % 4096), 3, '0') || '8' || lpad(to_hex(i / 4096 % 4096), 3, '0') || lpad(to_hex(i), 12, '0'))::uuid,
			       id, 3 + (i % $4::integer), 'zone-' || i % 1000, '["ingress","egress"]', to_timestamp(ms / 1000.0), to_timestamp(ms / 1000.0) + interval '30 days',
			       'api-token/bench', '00000000-0000-7000-8000-000000000000', 0
			FROM (SELECT i, k.id, (extract(epoch FROM now()) * 1000)::bigint - 86400000 + i * 86400000 / $3::bigint AS ms
			      FROM generate_series($1::bigint, $1::bigint + $2::bigint - 1) i, keysets k WHERE k.name = 'es256') row`,
	}
}
