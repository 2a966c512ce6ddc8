package integration

import (
	"testing"
	"time"

	"connectrpc.com/connect"
)

// TestShutdownDrains asks a busy server to end. Whoever it has let in gets an
// answer, and everybody else hears that it is gone.
func TestShutdownDrains(t *testing.T) {
	onBothStores(t, func(t *testing.T, db database) {
		in := installAdmin(t, db, settings{})
		s := in.start(t)
		keys := s.keys(t, "zone")
		l := startLoad(t, s, in.admin, 0)
		time.Sleep(between(300*time.Millisecond, 500*time.Millisecond))
		took := s.stop(t)
		tokens, failures := l.stop()
		wantCodes(t, failures, connect.CodeUnavailable)
		wantValid(t, keys, sample(tokens, 200)...)
		rows := db.wantRows(t, tokens)
		t.Logf("it took %s; %d tokens received, %d requests refused", took.Round(time.Millisecond), len(tokens), len(failures))
		if rows != len(tokens) {
			t.Errorf("the ledger has %d rows, clients received %d tokens: the others' answers were lost", rows, len(tokens))
		}
		in.verifyLedger(t)
	})
}
