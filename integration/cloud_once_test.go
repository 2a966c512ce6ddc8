package integration

import (
	"fmt"
	"maps"
	"testing"
	"time"
)

// TestCloudKeysAreAskedOnce has 32 clients ask for tokens of a key in a cloud's KMS,
// where each call is paid for and counts against a quota. A token is one call, which
// signs it, and there are no others: not one while nobody asks for anything.
func TestCloudKeysAreAskedOnce(t *testing.T) {
	onBothClouds(t, func(t *testing.T, start startCloud) {
		c := start(t, false)
		const clients, rest = 32, 2 * time.Second
		each := rounds(500, 10_000)/clients + 1
		db := newSQLite(t, t.TempDir())
		conf := inCloud(c, keyset{"zone", "zone", "ES256"})
		conf.leaseTTL = 3 * shortLease // no request may fail because a slow disk kept the server from renewing it
		in := installAdmin(t, db, conf)
		s := in.startWith(t, c)
		before := callsAtRest(t, c)
		time.Sleep(rest) // in which the server looks at everything several times
		wantCalls(t, c, before, 0)

		l := &load{}
		speak := []client{s.overConnect(t, in.admin), s.overGRPC(t, in.admin)}
		began := time.Now()
		for i := range clients {
			l.callers.Go(func() {
				for n := range each {
					start := time.Now()
					k, err := speak[i%len(speak)].issue(t.Context(), fmt.Sprintf("zone-%d-%d", i, n), 30*time.Second)
					l.note(k, failure{err, time.Since(start)})
				}
			})
		}
		l.callers.Wait()
		took := time.Since(began)
		tokens, failures := l.stop()
		wantCodes(t, failures)
		time.Sleep(rest)
		wantCalls(t, c, before, clients*each)
		wantValid(t, s.keys(t, "zone"), tokens...)
		wantDistinct(t, tokens)
		s.stop(t)
		wantCalls(t, c, before, clients*each)
		t.Logf("%d tokens in %s; the calls before them were %v, all in the end are %v", len(tokens), took.Round(time.Millisecond), before, c.calls())
		db.wantRows(t, tokens)
		in.verifyLedger(t)
	})
}

// callsAtRest waits until a server has come to rest that has just made its keys, and
// returns the calls until then.
func callsAtRest(t *testing.T, c cloud) (calls map[string]int) {
	t.Helper()
	eventually(t, 20*time.Second, "there are no calls for a while", func() bool {
		calls = c.calls()
		time.Sleep(500 * time.Millisecond)
		return maps.Equal(calls, c.calls())
	})
	return calls
}

// wantCalls wants a cloud to have been asked for so many signatures since then, and
// for nothing else.
func wantCalls(t *testing.T, c cloud, since map[string]int, signatures int) {
	t.Helper()
	want, got := maps.Clone(since), c.calls()
	want[c.signs()] += signatures
	if !maps.Equal(got, want) {
		t.Errorf("the calls were %v and are %v, want %v", since, got, want)
	}
}
