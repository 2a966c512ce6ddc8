package integration

import (
	"context"
	"net/http"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
)

// shortLease is the lease of tests that wait for its end.
const shortLease = 2 * time.Second

// installBehindProxy sets zonemint up with a proxy in front of its database.
func installBehindProxy(t *testing.T, db database, s settings) (*installation, *proxy) {
	t.Helper()
	behind, p := proxied(t, db)
	return installAdmin(t, behind, s), p
}

// TestDatabaseDown takes the database away from a server and gives it back: with
// an error for every connection, and in silence. Issuing stops and says so, keys
// are served all along, and nothing has to be restarted.
func TestDatabaseDown(t *testing.T) {
	t.Run("cut", func(t *testing.T) {
		playOutage(t, (*proxy).cut, (*proxy).mend, connect.CodeUnavailable)
	})
	t.Run("silent", func(t *testing.T) {
		playOutage(t, (*proxy).stall, (*proxy).flow, connect.CodeUnavailable, connect.CodeDeadlineExceeded)
	})
}

// playOutage plays one kind of outage. atFirst are the codes that issuing may
// fail with while the server still has its lease; after that it knows.
func playOutage(t *testing.T, begin, end func(*proxy), atFirst ...connect.Code) {
	db := newPostgres(t)
	in, p := installBehindProxy(t, db, settings{leaseTTL: shortLease})
	s := in.start(t)
	c := s.overConnect(t, in.admin)
	tokens := []issued{c.mustIssueSoon(t, "before")}

	begin(p)
	began := time.Now()
	ended := false
	t.Cleanup(func() {
		if !ended {
			end(p)
		}
	})
	wantRefused(t, c, 3*time.Second, atFirst...)
	eventually(t, shortLease+time.Second, "max-age falls to 0", func() bool {
		age := s.jwks(t, "zone").maxAge
		if age < 0 || age > shortLease {
			t.Fatalf("%s into the outage max-age is %s", time.Since(began), age)
		}
		return age == 0
	})
	eventually(t, shortLease+time.Second, "the server is not ready", func() bool { return s.ready(t) == http.StatusServiceUnavailable })
	if status := s.live(t); status != http.StatusOK {
		t.Errorf("the server counts as dead: status %d", status)
	}
	wantRefused(t, c, 3*time.Second, connect.CodeUnavailable)
	wantRefused(t, s.overGRPC(t, in.admin), 3*time.Second, connect.CodeUnavailable)
	wantValid(t, s.keys(t, "zone"), tokens...)

	end(p)
	ended = true
	took := eventually(t, 10*time.Second, "issuing works again", func() bool {
		k, err := c.issue(t.Context(), "after", time.Second)
		if err == nil {
			tokens = append(tokens, k)
		}
		return err == nil
	})
	t.Logf("issuing works %s after the database is back", took.Round(time.Millisecond))
	// It may lose its short lease once more where the disk is slow.
	eventually(t, shortLease, "the server that issues is ready", func() bool { return s.ready(t) == http.StatusOK })
	eventually(t, shortLease, "max-age is more than 0 again", func() bool { return s.jwks(t, "zone").maxAge > 0 })
	wantValid(t, s.keys(t, "zone"), tokens...)
	s.stop(t)
	db.wantRows(t, tokens)
	in.verifyLedger(t)
}

// TestDatabaseMoves lets the machine under the database die, so that nobody ends
// its connections, and another one take over its address. Requests that wait for
// the dead one must not keep the server from finding the living one.
func TestDatabaseMoves(t *testing.T) {
	const patience = 12 * time.Second
	db := newPostgres(t)
	in, p := installBehindProxy(t, db, settings{leaseTTL: shortLease})
	s := in.start(t)
	c := s.overConnect(t, in.admin)
	tokens := []issued{c.mustIssueSoon(t, "before")}
	// They ask the database every time, and are more than it has connections.
	for f := range ask(t, c, 20, 5*time.Second) {
		if f.err != nil {
			t.Fatal(f.err)
		}
	}

	m := watchMachineIn(t)
	from := time.Now()
	p.strand()
	waiting := ask(t, c, 20, 2*patience)
	took := settles(patience, func() bool {
		k, err := c.issue(t.Context(), "after", time.Second)
		if err == nil {
			tokens = append(tokens, k)
		}
		return err == nil
	})
	if took > patience {
		t.Errorf("issuing does not work %s after the database has moved", took)
	}
	t.Logf("issuing works %s after the database has moved", took.Round(time.Millisecond))
	var slow []failure
	for f := range waiting {
		if f.err != nil && codeOf(f.err) != connect.CodeUnavailable || f.took > patience+m.paused(from) {
			slow = append(slow, f)
		}
	}
	if len(slow) > 0 {
		t.Errorf("%d requests were left waiting, one of them for %s until %v", len(slow), slow[0].took.Round(time.Millisecond), slow[0].err)
	}
	db.wantRows(t, tokens)
}

// ask has many ask who they are at the same time, and returns how that ends.
func ask(t *testing.T, c client, many int, deadline time.Duration) <-chan failure {
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	outcomes := make(chan failure, many)
	var callers sync.WaitGroup
	for range many {
		callers.Go(func() {
			start := time.Now()
			_, err := c.callers.WhoAmI(ctx, &pb.WhoAmIRequest{})
			outcomes <- failure{err, time.Since(start)}
		})
	}
	go func() {
		callers.Wait()
		cancel()
		close(outcomes)
	}()
	return outcomes
}

// wantRefused wants issuing to fail with one of the codes, before the deadline.
func wantRefused(t *testing.T, c client, deadline time.Duration, codes ...connect.Code) {
	t.Helper()
	m := watchMachine()
	defer m.stop()
	for {
		start := time.Now()
		_, err := c.issue(context.WithoutCancel(t.Context()), "during", deadline)
		took := m.took(start)
		if err == nil {
			t.Fatal("a token was issued without a database")
		}
		if codeOf(err) == connect.CodeDeadlineExceeded && took < deadline/2 {
			continue // the machine has used up what the server had
		}
		wantCodes(t, []failure{{err, took}}, codes...)
		if took > deadline+500*time.Millisecond {
			t.Errorf("it took %s to say so, the deadline was %s", took, deadline)
		}
		return
	}
}

// TestConnectionLostDuringCommit cuts the connections to the database, again and
// again, under a server that is busy committing. Some of the commits are done by
// then, and nobody was told.
func TestConnectionLostDuringCommit(t *testing.T) {
	db := newPostgres(t)
	in, p := installBehindProxy(t, db, settings{})
	s := in.start(t)
	l := startLoad(t, s, in.admin, 0)
	for range rounds(8, 60) {
		time.Sleep(between(50*time.Millisecond, 250*time.Millisecond))
		p.cut()
		time.Sleep(between(0, 100*time.Millisecond))
		p.mend()
	}
	before := l.received()
	eventually(t, 10*time.Second, "issuing works again", func() bool { return l.received() >= before+2*issuers })
	tokens, failures := l.stop()
	if len(failures) == 0 {
		t.Error("no request was hit, so nothing was shown")
	}
	wantCodes(t, failures, connect.CodeUnavailable)
	wantValid(t, s.keys(t, "zone"), sample(tokens, 200)...)
	s.stop(t)
	wantDistinct(t, tokens)
	rows := db.wantRows(t, tokens)
	t.Logf("%d tokens received, %d requests failed, %d rows in the ledger", len(tokens), len(failures), rows)
	in.verifyLedger(t)
}
