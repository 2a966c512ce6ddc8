package integration

import (
	"context"
	"database/sql"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
)

// movers is callers who ask for tokens of a keyset while it moves, and have its
// verifiers look at each.
type movers struct {
	audience *audience
	callers  sync.WaitGroup
	ctx      context.Context // ends the callers
	end      context.CancelFunc

	mu       sync.Mutex
	tokens   []issued
	failures []failure
	wrong    []error
}

// startMovers begins to ask a server. Half of the verifiers keep each JWK set for
// as long as they may.
func startMovers(t *testing.T, s *server, credential string) *movers {
	t.Helper()
	m := &movers{audience: &audience{keyset: "zone", machine: watchMachineIn(t)}}
	url := "http://" + s.public + "/keysets/zone/jwks.json"
	for i := range strictVerifiers {
		m.audience.add(t, fmt.Sprintf("strict verifier %d", i), &strictKeys{url: url, client: http.DefaultClient}, nil)
	}
	m.audience.add(t, "RemoteKeys", remoteKeys(t, url, nil), nil)
	m.ctx, m.end = context.WithCancel(context.WithoutCancel(t.Context()))
	speak := []client{s.overConnect(t, credential), s.overGRPC(t, credential)}
	for i := range 8 {
		m.callers.Go(func() { m.call(speak[i%len(speak)], fmt.Sprintf("zone-%d", i)) })
	}
	t.Cleanup(func() { m.end(); m.callers.Wait() })
	return m
}

func (m *movers) call(c client, zone string) {
	for ; m.ctx.Err() == nil; time.Sleep(between(5*time.Millisecond, 25*time.Millisecond)) {
		ctx := context.WithoutCancel(m.ctx) // what is under way comes to its end
		start := time.Now()
		k, err := c.issue(ctx, zone, 10*time.Second)
		var wrong []error
		if err == nil {
			wrong = m.audience.verify(ctx, k)
		}
		m.mu.Lock()
		if m.wrong = append(m.wrong, wrong...); err == nil {
			m.tokens = append(m.tokens, k)
		} else {
			m.failures = append(m.failures, failure{err, time.Since(start)})
		}
		m.mu.Unlock()
	}
}

// stop lets requests under way come to their end, fails the test for every token
// that a verifier refused, and returns the tokens.
func (m *movers) stop(t *testing.T) []issued {
	t.Helper()
	m.end()
	m.callers.Wait()
	m.wantAccepted(t)
	accepted, _, delayed := m.audience.counts()
	t.Logf("%d tokens, accepted %d times, refused %d times, and %d times while the machine paused", len(m.tokens), accepted, len(m.wrong), delayed)
	wantCodes(t, m.failures, connect.CodeUnavailable)
	wantDistinct(t, m.tokens)
	return m.tokens
}

// wantAccepted has all verifiers look at every token so far once more.
func (m *movers) wantAccepted(t *testing.T) {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, k := range m.tokens {
		m.wrong = append(m.wrong, m.audience.verify(context.WithoutCancel(m.ctx), k)...)
	}
	for i, err := range m.wrong {
		if i == 10 {
			t.Errorf("and %d more", len(m.wrong)-i)
			break
		}
		t.Error(err)
	}
}

// move has an operator move a keyset to another backend, and waits until a key
// there signs. It returns how long that took.
func (in *installation) move(t *testing.T, s *server, backend string) time.Duration {
	t.Helper()
	env := []string{"ZONEMINT_ADDR=http://" + s.public, "ZONEMINT_TOKEN_FILE=" + in.adminToken}
	cli := func(args ...string) string { return runWith(t, env, os.Getenv(binaryVariable), args...).must(t) }
	start := time.Now()
	text := cli("key", "rotate", "zone", "--backend", backend, "--wait", "--timeout", "50s", "--reason", "moving to "+backend, "-o", "json")
	took := time.Since(start)
	type key struct {
		Serial         int
		State, Backend string
	}
	for _, k := range decode[struct{ SigningKeys []key }](t, text).SigningKeys {
		if k.State != "active" {
			continue
		}
		shown := decode[struct{ SigningKey key }](t, cli("key", "show", "zone", strconv.Itoa(k.Serial), "-o", "json")).SigningKey
		if k.Backend != backend || shown != k {
			t.Errorf("after the move to %s the serial %d of %s signs, key show says %+v", backend, k.Serial, k.Backend, shown)
		}
		return took
	}
	t.Fatalf("after the move to %s no key signs:\n%s", backend, text)
	return 0
}

// wantSignedBy wants rows in the ledger of keys of each of the backends.
func (d database) wantSignedBy(t *testing.T, backends ...string) {
	t.Helper()
	rows := map[string]int{}
	query := "SELECT k.backend, count(*) FROM ledger l JOIN signing_keys k ON k.keyset_id = l.keyset_id AND k.serial = l.serial GROUP BY k.backend"
	d.each(t, query, func(r *sql.Rows) error {
		var backend string
		var n int
		err := r.Scan(&backend, &n)
		rows[backend] = n
		return err
	})
	t.Logf("rows in the ledger by backend: %v", rows)
	for _, backend := range backends {
		if rows[backend] < moveTokens {
			t.Errorf("%s has signed %d tokens", backend, rows[backend])
		}
	}
}

// TestAKeysetMovesBetweenBackends moves a keyset from the database into an HSM,
// from there to Vault and back, while tokens of it are issued and verified by
// verifiers that use every JWK set for as long as they may. Then the HSM and Vault
// disappear, and what they have signed goes on verifying.
func TestAKeysetMovesBetweenBackends(t *testing.T) {
	h, v := newHSM(t), startVault(t)
	db := newSQLite(t, t.TempDir())
	more := v.admit(t, "http://"+v.addr)
	in := installAdmin(t, db, moving(h.settings().more, more))
	s := in.start(t)
	m := startMovers(t, s, in.admin)
	for i, backend := range []string{"local", "hsm", "vault", "local"} {
		if i > 0 {
			took := in.move(t, s, backend)
			t.Logf("moved to %s within %s", backend, took.Round(time.Millisecond))
		}
		before := m.received()
		eventually(t, 10*time.Second, "tokens of "+backend, func() bool { return m.received() >= before+moveTokens })
		m.wantAccepted(t)
	}
	tokens := m.stop(t)
	db.wantSignedBy(t, "local", "hsm", "vault")

	h.kill()
	v.kill(t)
	time.Sleep(shortLease) // in which the server looks at everything several times
	tokens = append(tokens, s.wantServed(t, in.admin, tokens))
	s.stop(t)
	// They need not be there for a start, nor stay in the configuration.
	for _, rest := range []settings{moving(h.settings().more, more), moving()} {
		in.configure(t, in.config, filepath.Join(in.dir, "instance.key"), rest)
		s = in.start(t)
		tokens = append(tokens, s.wantServed(t, in.admin, tokens))
		s.stop(t)
	}
	db.wantRows(t, tokens)
	in.verifyLedger(t)
}

// moveTokens is how many tokens each backend signs at least.
const moveTokens = 50

// moving returns settings with short waits and backends, which are taken from
// other settings. Keysets are made in the database.
func moving(backends ...string) settings {
	more := "jwks_max_age: 1s\njwks_stale_if_error: 0s\nclock_skew: 250ms\n"
	if len(backends) > 0 {
		more += "backends:\n"
	}
	for _, text := range backends {
		_, backend, _ := strings.Cut(text, "backends:\n")
		more += backend
	}
	return settings{keysets: []keyset{{"zone", "zone", "RS256"}}, leaseTTL: shortLease, more: more}
}

// wantServed wants a server to be ready, to issue, and to serve the keys of all
// tokens. It returns the one that it has issued.
func (s *server) wantServed(t *testing.T, credential string, tokens []issued) issued {
	t.Helper()
	eventually(t, shortLease, "the server is ready", func() bool { return s.ready(t) == http.StatusOK })
	k := s.overConnect(t, credential).mustIssueSoon(t, "after")
	wantValid(t, s.keys(t, "zone"), append(tokens, k)...)
	return k
}

// received returns how many tokens there are so far.
func (m *movers) received() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.tokens)
}
