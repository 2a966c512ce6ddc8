package integration

import (
	"math/rand/v2"
	"testing"
	"time"
)

// between returns a random moment.
func between(least, most time.Duration) time.Duration {
	return least + rand.N(most-least)
}

// TestKillNine kills a server that is busy issuing, again and again. Whatever a
// client has received by then is in the ledger of the server that comes after.
func TestKillNine(t *testing.T) {
	onBothStores(t, func(t *testing.T, db database) {
		in := installAdmin(t, db, settings{})
		var all []issued
		for round := range rounds(3, 20) {
			s := in.start(t)
			keys := s.keys(t, "zone")
			l := startLoad(t, s, in.admin, round)
			moment := between(100*time.Millisecond, 700*time.Millisecond)
			time.Sleep(moment)
			eventually(t, 30*time.Second, "there is a token", func() bool { return l.received() > 0 })
			s.kill()
			tokens, _ := l.stop()
			t.Logf("round %d: killed after %s, %d tokens received", round, moment.Round(time.Millisecond), len(tokens))
			wantValid(t, keys, sample(tokens, 200)...)
			all = append(all, tokens...)
		}
		s := in.start(t)
		after := s.overConnect(t, in.admin).mustIssue(t, "after")
		wantValid(t, s.keys(t, "zone"), append(sample(all, 200), after)...)
		s.stop(t)
		if len(all) == 0 {
			t.Fatal("no client received anything, so nothing was shown")
		}
		wantDistinct(t, all)
		rows := db.wantRows(t, append(all, after))
		t.Logf("%d tokens received, %d rows in the ledger", len(all)+1, rows)
		in.verifyLedger(t)
	})
}
