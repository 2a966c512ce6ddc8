package integration

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
)

// vaultFault is one way of Vault to fail.
type vaultFault struct {
	name       string
	begin, end func()
	stops      bool                     // no token is issued while it lasts
	spares     bool                     // no request may fail because of it
	during     func(*testing.T, client) // more to be tried while it lasts
}

// vaultFaults returns what is done to a Vault and on the way to it.
func vaultFaults(t *testing.T, v *vault, p *vaultProxy, s *server) []vaultFault {
	logins := 0
	countLogins := func() int { return strings.Count(s.log.String(), "logged in to vault") }
	return []vaultFault{
		{
			name: "sealed", stops: true,
			begin: func() { v.must(t, "PUT", "sys/seal", nil) },
			end:   func() { v.unseal(t) },
		},
		{
			name: "token revoked", spares: true,
			begin: func() {
				logins = countLogins()
				v.must(t, "PUT", "sys/leases/revoke-prefix/auth/approle", map[string]any{"sync": true})
			},
			end: func() {
				eventually(t, 10*time.Second, "the server has logged in again", func() bool { return countLogins() > logins })
			},
		},
		{
			name: "killed", stops: true,
			begin: func() { v.kill(t) },
			end:   func() { v.start(t); v.unseal(t) },
		},
		{
			name: "slow", spares: true, during: wantTooLate,
			begin: func() { p.delay.Store(int64(slowVault)) },
			end:   func() { p.delay.Store(0) },
		},
		{
			name:  "every third answer cut off",
			begin: func() { p.breaks.Store(3) },
			end:   func() { p.breaks.Store(0) },
		},
		{
			name: "all answers cut off", stops: true,
			begin: func() { p.breaks.Store(1) },
			end:   func() { p.breaks.Store(0) },
		},
	}
}

// TestVaultFaultsUnderLoad has Vault fail in every way under 32 clients who ask for
// tokens. None of these is wrong, requests that fail say that Vault is not there,
// and two seconds after a fault is over there are tokens again, from the same
// server.
func TestVaultFaultsUnderLoad(t *testing.T) {
	const clients, deadline = 32, 10 * time.Second
	v := startVault(t)
	p := beforeVault(t, v.addr)
	db := newSQLite(t, t.TempDir())
	in := installAdmin(t, db, settings{
		keysets: []keyset{{"zone", "zone", "RS256"}}, more: v.admit(t, "http://"+p.listener.Addr().String()),
	})
	s := in.start(t)
	l := &load{}
	speak := []client{s.overConnect(t, in.admin), s.overGRPC(t, in.admin)}
	for i := range clients {
		l.callers.Go(func() { l.ask(t.Context(), speak[i%len(speak)], fmt.Sprintf("load-%d", i), 0) })
	}
	t.Cleanup(func() { l.stop() })
	everybody := func() {
		t.Helper()
		before := l.received()
		eventually(t, deadline, "everybody gets tokens", func() bool { return l.received() > before+2*clients })
	}
	everybody()

	for range rounds(1, 10) {
		for _, f := range vaultFaults(t, v, p, s) {
			s.suffer(t, f, l, speak[0])
			everybody()
		}
	}
	tokens, failures := l.stop()
	for _, f := range failures {
		if f.took > 2*deadline {
			t.Errorf("a request took %s, its deadline was %s", f.took, deadline)
		}
	}
	wantValid(t, s.keys(t, "zone"), tokens...)
	wantDistinct(t, tokens)
	if log := s.log.String(); strings.Contains(log, "hvs.") {
		t.Error("the log contains a token of Vault")
	}
	s.stop(t) // fails if this process has ended before
	rows := db.wantRows(t, tokens)
	t.Logf("%d tokens received, %d requests failed, %d rows in the ledger, %d answers cut off", len(tokens), len(failures), rows, p.broken.Load())
	in.verifyLedger(t)
}

// slowVault is by how much each answer of Vault is late when it is slow.
const slowVault = 500 * time.Millisecond

// wantTooLate has callers ask who have less patience than Vault needs, and others
// who have enough. The former are told so in time and the latter get tokens: that
// somebody was in a hurry says nothing of Vault.
func wantTooLate(t *testing.T, c client) {
	t.Helper()
	const callers, hurry, patience = 8, slowVault / 5, 10 * time.Second
	late, calm := &load{}, &load{}
	ask := func(l *load, deadline time.Duration) {
		for until := time.Now().Add(2 * slowVault); time.Now().Before(until); time.Sleep(between(0, 50*time.Millisecond)) {
			start := time.Now()
			k, err := c.issue(t.Context(), "slow", deadline)
			l.note(k, failure{err, time.Since(start)})
		}
	}
	for range callers {
		late.callers.Go(func() { ask(late, hurry) })
		calm.callers.Go(func() { time.Sleep(between(0, slowVault)); ask(calm, patience) })
	}
	late.callers.Wait()
	calm.callers.Wait()
	if n := late.received(); n > 0 {
		t.Errorf("%d tokens were issued within %s, so Vault was not slow", n, hurry)
	}
	for _, f := range late.failures {
		if f.took > hurry+patience {
			t.Errorf("a request took %s, its deadline was %s", f.took, hurry)
		}
	}
	wantCodes(t, late.failures, connect.CodeDeadlineExceeded, connect.CodeUnavailable)
	wantCodes(t, calm.failures)
}

// back is how soon after the end of a fault there have to be tokens again.
const back = 2 * time.Second

// suffer has the server go through a fault under load.
func (s *server) suffer(t *testing.T, f vaultFault, l *load, c client) {
	t.Helper()
	from := l.failed()
	f.begin()
	before := l.received()
	if f.stops {
		wantRefused(t, c, 2*time.Second, connect.CodeUnavailable)
	}
	time.Sleep(between(500*time.Millisecond, 1500*time.Millisecond)) // so that the guard is met at every step of its pauses
	if f.during != nil {
		f.during(t, c)
	}
	if !f.stops {
		eventually(t, 10*time.Second, f.name+": there are tokens all the same", func() bool { return l.received() > before })
	}
	if status := s.live(t); status != http.StatusOK {
		t.Errorf("%s: the server counts as dead: status %d", f.name, status)
	}
	if doc := s.jwks(t, "zone"); doc.maxAge <= 0 {
		t.Errorf("%s: keys are served with max-age %s", f.name, doc.maxAge)
	}
	wantValid(t, s.keys(t, "zone"), sampleOf(l)...)
	f.end()
	before = l.received()
	took := eventually(t, 10*time.Second, f.name+" is over: there are tokens again", func() bool { return l.received() > before })
	until := l.failed()
	t.Logf("%s: tokens again %s after it was over, %d requests failed", f.name, took.Round(time.Millisecond), until-from)
	if took > back {
		t.Errorf("%s: that is more than %s", f.name, back)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	wantCodes(t, l.failures[from:until], connect.CodeUnavailable)
	if f.spares && until > from {
		t.Errorf("%s: %d requests failed, the first with %v", f.name, until-from, l.failures[from].err)
	}
}

// failed returns how many requests have failed so far.
func (l *load) failed() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.failures)
}

// vaultProxy stands between a server and its Vault, and fails on demand.
type vaultProxy struct {
	listener net.Listener
	target   string
	delay    atomic.Int64 // nanoseconds, before each answer
	breaks   atomic.Int64 // of so many answers one ends in its middle, and its connection; 0: none does
	answers  atomic.Int64
	broken   atomic.Int64

	mu    sync.Mutex
	conns []net.Conn
	work  sync.WaitGroup
}

// beforeVault starts a proxy, which ends with the test.
func beforeVault(t *testing.T, target string) *vaultProxy {
	t.Helper()
	p := &vaultProxy{target: target}
	var err error
	if p.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	p.work.Go(p.accept)
	t.Cleanup(func() {
		shut(p.listener)
		p.mu.Lock()
		for _, c := range p.conns {
			shut(c)
		}
		p.conns = nil
		p.mu.Unlock()
		p.work.Wait()
	})
	return p
}

func (p *vaultProxy) accept() {
	for {
		from, err := p.listener.Accept()
		if err != nil {
			return
		}
		to, err := net.Dial("tcp", p.target)
		if err != nil { // Vault is not there
			shut(from)
			continue
		}
		p.mu.Lock()
		p.conns = append(p.conns, from, to)
		p.mu.Unlock()
		p.work.Go(func() { forward(from, to, &gate{}) })
		p.work.Go(func() { p.answer(to, from) })
	}
}

// answer forwards answers. Each is read in one piece, as short ones are over the
// loopback.
func (p *vaultProxy) answer(from, to net.Conn) {
	defer shut(from)
	defer shut(to)
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		time.Sleep(time.Duration(p.delay.Load()))
		every, whole := p.breaks.Load(), n
		if every > 0 && n > 1 && p.answers.Add(1)%every == 0 {
			p.broken.Add(1)
			n = 1 + rand.IntN(n-1)
		}
		if _, err := to.Write(buf[:n]); err != nil || n < whole {
			return
		}
	}
}
