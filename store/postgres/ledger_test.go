package postgres_test

import (
	"crypto/rand"
	"database/sql"
	"errors"
	"io"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/mac"

	"github.com/zonemint/zonemint/store"
	"github.com/zonemint/zonemint/store/postgres/postgrestest"
	"github.com/zonemint/zonemint/store/storetest"
)

// ledger is a store with a key that signs.
type ledger struct {
	db  *store.DB
	sql *sql.DB
	key store.SigningKey
}

// openLedger sets a database up directly, and returns the store on it through
// another URL, for example that of a proxy.
func openLedger(t *testing.T, direct, through string) ledger {
	t.Helper()
	if _, err := open(t, direct).Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	handle, err := keyset.NewHandle(mac.HMACSHA256Tag256KeyTemplate())
	if err != nil {
		t.Fatal(err)
	}
	m, err := mac.New(handle)
	if err != nil {
		t.Fatal(err)
	}
	db, err := store.Open(t.Context(), open(t, through), m)
	if err != nil {
		t.Fatal(err)
	}
	by := store.Actor{Name: "cli/tester"}
	_, keys, err := db.CreateKeyset(t.Context(), store.Keyset{Name: "zone", Distribution: store.DistributionJWKS},
		[]store.NewKey{{Role: store.RolePrimary, Label: rand.Text()}}, by)
	if err != nil {
		t.Fatal(err)
	}
	made := store.Made{KID: "zone-1-00000000", Thumbprint: "00", PublicKey: []byte("public")}
	if _, err := db.PublishSigningKey(t.Context(), keys[0].ID, 0, made, by); err != nil {
		t.Fatal(err)
	}
	key, err := storetest.Move(t.Context(), db, keys[0], store.StateActive, "")
	if err != nil {
		t.Fatal(err)
	}
	return ledger{db, openSQL(t, direct), key}
}

// record records one row of a token that was issued some time ago.
func (l ledger) record(t *testing.T, ago time.Duration) (uuid.UUID, error) {
	t.Helper()
	link, err := store.NewChain()
	if err != nil {
		t.Fatal(err)
	}
	at := time.Now().UTC().Add(-ago)
	jti := store.FirstJTI(at)
	if _, err := rand.Read(jti[6:]); err != nil {
		t.Fatal(err)
	}
	_, refused, err := l.db.Record(t.Context(), link, []store.Issuance{{
		JTI: jti, KeysetID: l.key.KeysetID, Serial: 1, KeyID: l.key.ID, Subject: "east", Scopes: "[]",
		IssuedAt: at, ExpiresAt: at.Add(time.Hour), Caller: "cli/tester",
	}})
	if err == nil && !refused.Empty() {
		t.Fatalf("refused: %+v", refused)
	}
	return jti, err
}

func (l ledger) count(t *testing.T, table string) (n int) {
	t.Helper()
	if err := l.sql.QueryRowContext(t.Context(), "SELECT count(*) FROM "+table).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestLostConnections loses the connection while a batch is recorded, before it
// reaches the server and after the server has committed it. Nobody on this side
// can tell the two apart.
func TestLostConnections(t *testing.T) {
	t.Parallel()
	direct := postgrestest.New(t)
	p := newProxy(t, direct)
	l := openLedger(t, direct, p.url)

	for _, c := range []struct {
		lose fate
		rows int
	}{{loseRequests, 1}, {loseReplies, 3}} {
		// One goes through, so that the connection has the statement prepared.
		if _, err := l.record(t, 0); err != nil {
			t.Fatal(err)
		}

		p.fate.Store(int32(c.lose))
		jti, err := l.record(t, 0)
		if !errors.Is(err, store.ErrUnknownOutcome) {
			t.Errorf("got %v, want an unknown outcome", err)
		}
		// The server may be a moment behind.
		for until := time.Now().Add(time.Minute); l.count(t, "ledger") != c.rows && time.Now().Before(until); {
			time.Sleep(time.Millisecond)
		}
		if n := l.count(t, "ledger"); n != c.rows {
			t.Errorf("the ledger has %d rows, want %d", n, c.rows)
		}

		// While there is no server at all, the outcome is known.
		if _, err := l.record(t, 0); !errors.Is(err, store.ErrUnavailable) || errors.Is(err, store.ErrUnknownOutcome) {
			t.Errorf("without a server: got %v, want unavailable", err)
		}
		p.fate.Store(int32(relay))
		if _, err := l.db.Issuance(t.Context(), jti); (err == nil) != (c.lose == loseReplies) {
			t.Errorf("the row of the lost batch: %v", err)
		}
	}
	if _, err := l.record(t, 0); err != nil {
		t.Errorf("with the server back: %v", err)
	}
}

// TestTerminatedConnection has the server end a connection whose batch waits for
// a lock. Here the server says so, and the outcome is known.
func TestTerminatedConnection(t *testing.T) {
	t.Parallel()
	direct := postgrestest.New(t)
	l := openLedger(t, direct, direct)
	if _, err := l.record(t, 0); err != nil {
		t.Fatal(err)
	}
	tx, err := l.sql.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback() //nolint:errcheck // the lock is all it was for
	if _, err := tx.ExecContext(t.Context(), "SELECT FROM signing_keys FOR UPDATE"); err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		_, err := l.record(t, 0)
		done <- err
	}()
	l.terminateWaiting(t)
	if err := <-done; !errors.Is(err, store.ErrUnavailable) || errors.Is(err, store.ErrUnknownOutcome) {
		t.Errorf("got %v, want unavailable", err)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	if n := l.count(t, "ledger"); n != 1 {
		t.Errorf("the ledger has %d rows, want 1", n)
	}
	if _, err := l.record(t, 0); err != nil {
		t.Errorf("over another connection: %v", err)
	}
}

// terminateWaiting ends the connection that waits for a lock, as soon as there is
// one.
func (l ledger) terminateWaiting(t *testing.T) {
	t.Helper()
	const terminate = `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
		WHERE datname = current_database() AND wait_event_type = 'Lock'`
	for n := int64(0); n == 0; time.Sleep(time.Millisecond) {
		result, err := l.sql.ExecContext(t.Context(), terminate)
		if err != nil {
			t.Fatal(err)
		}
		if n, err = result.RowsAffected(); err != nil {
			t.Fatal(err)
		}
	}
}

// fate is what a proxy does with what it receives.
type fate int32

const (
	relay fate = iota
	loseRequests
	loseReplies
)

// proxy stands between an engine and its server. With a fate other than relay it
// drops what it receives in one direction, ends the connection after it, and
// takes no new ones.
type proxy struct {
	url    string
	server string
	fate   atomic.Int32
}

func newProxy(t *testing.T, direct string) *proxy {
	t.Helper()
	u, err := url.Parse(direct)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{server: u.Host}
	u.Host = listener.Addr().String()
	p.url = u.String()
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { p.serve(conn) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		wg.Wait()
	})
	return p
}

func (p *proxy) serve(client net.Conn) {
	defer client.Close() //nolint:errcheck // one way or another it is over
	if fate(p.fate.Load()) != relay {
		return
	}
	server, err := net.Dial("tcp", p.server)
	if err != nil {
		return
	}
	defer server.Close() //nolint:errcheck // as above
	var wg sync.WaitGroup
	wg.Go(func() { p.pass(server, client, loseRequests) })
	wg.Go(func() { p.pass(client, server, loseReplies) })
	wg.Wait()
}

// pass passes on what comes from one side until it is told to lose it. Then both
// sides see the end of the connection.
func (p *proxy) pass(to, from net.Conn, lose fate) {
	defer to.Close()   //nolint:errcheck // as above
	defer from.Close() //nolint:errcheck // as above
	buf := make([]byte, 1<<16)
	for {
		n, err := from.Read(buf)
		if err != nil || fate(p.fate.Load()) == lose {
			return
		}
		if _, err := to.Write(buf[:n]); err != nil && !errors.Is(err, io.EOF) {
			return
		}
	}
}
