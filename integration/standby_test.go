package integration

import (
	"context"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// standbyRest is how long Vault has to be well before its key signs again.
const standbyRest = 3 * time.Second

// TestAStandbySignsWhileVaultIsCutOff keeps a keyset in Vault, with an HSM to stand in
// for it, and cuts Vault off under 32 clients who ask for tokens: answers never come,
// or connections end. It reports the longest time without a token, wants every token
// to verify, and Vault to sign again, once, when it has been well for a while.
func TestAStandbySignsWhileVaultIsCutOff(t *testing.T) {
	h, v := newHSM(t), startVault(t)
	p := beforeVault(t, v.addr)
	db := newSQLite(t, t.TempDir())
	conf := moving(h.settings().more, v.admit(t, "http://"+p.listener.Addr().String()))
	conf.more = fmt.Sprintf("default_backend: vault\nstandby:\n  return_after: %s\n", standbyRest) + conf.more
	conf.leaseTTL = 3 * shortLease // no request may fail because a slow disk kept the server from renewing it
	in := installAdmin(t, db, conf)
	s := in.start(t)
	m, began := watchMachineIn(t), time.Now()
	standby := in.withStandby(t, s, "hsm")
	w := startWatch(t, s, in.admin)
	w.wantFrom(t, "vault", func(kid string) bool { return kid != standby })

	switches := 0
	for round := range rounds(1, 5) {
		if round > 0 {
			time.Sleep(5 * standbyRest) // after which an outage is not one of a series, in which Vault would rest ever longer
		}
		for _, cut := range []struct {
			name       string
			begin, end func()
		}{
			{"its answers do not come", func() { p.delay.Store(int64(5 * time.Second)) }, func() { p.delay.Store(0) }},
			{"its connections end", func() { p.breaks.Store(1) }, func() { p.breaks.Store(0) }},
		} {
			from := time.Now()
			cut.begin()
			w.wantFrom(t, "the standby", func(kid string) bool { return kid == standby })
			time.Sleep(2 * time.Second)
			during := time.Now()
			cut.end()
			w.wantFrom(t, "Vault", func(kid string) bool { return kid != standby })
			switches++
			t.Logf("%s: the longest time without a token was %s in the outage, %s after it; one request took %s", cut.name,
				w.gap(from, during).Round(time.Millisecond), w.gap(during, time.Now()).Round(time.Millisecond), w.slowest(from).Round(time.Millisecond))
			if gap := w.gap(from, time.Now()); gap > 3*time.Second+m.paused(from) {
				t.Errorf("%s: nobody got a token for %s", cut.name, gap)
			}
			time.Sleep(2 * standbyRest / 3) // in which it stays so
		}
	}
	tokens := w.stop(t)
	wantValid(t, s.keys(t, "zone"), tokens...)
	wantDistinct(t, tokens)
	s.stop(t)
	audited := map[string]int{}
	db.each(t, "SELECT action FROM audit_events WHERE action LIKE 'keyset.standby-%'", func(r *sql.Rows) error {
		var action string
		err := r.Scan(&action)
		audited[action]++
		return err
	})
	// While the machine pauses Vault does not answer either, and the standby is right to
	// sign.
	ins, downs := audited["keyset.standby-in"], audited["keyset.standby-down"]
	more := ins >= downs && downs >= switches && m.longest(began, time.Now()) > 300*time.Millisecond
	if (ins != switches || downs != switches) && !more {
		t.Errorf("the audit has %v, want %d of each", audited, switches)
	}
	t.Logf("%d tokens, %d failed requests", len(tokens), len(w.failures))
	db.wantRows(t, tokens)
	in.verifyLedger(t)
}

// withStandby gives the keyset zone a standby and returns its kid once it is ready.
func (in *installation) withStandby(t *testing.T, s *server, backend string) (kid string) {
	t.Helper()
	env := []string{"ZONEMINT_ADDR=http://" + s.public, "ZONEMINT_TOKEN_FILE=" + in.adminToken}
	cli := func(args ...string) string { return runWith(t, env, os.Getenv(binaryVariable), args...).must(t) }
	cli("keyset", "update", "zone", "--standby", backend)
	eventually(t, time.Minute, "the standby is ready", func() bool {
		type key struct{ KID, Role, State string }
		for _, k := range decode[struct{ SigningKeys []key }](t, cli("key", "list", "--keyset", "zone", "-o", "json")).SigningKeys {
			if k.Role == "standby" && k.State == "active" {
				kid = k.KID
			}
		}
		return kid != ""
	})
	return kid
}

// watch is 32 clients who ask for tokens, and what they got when.
type watch struct {
	callers sync.WaitGroup
	end     context.CancelFunc

	mu       sync.Mutex
	got      []received
	failures []failure
}

type received struct {
	issued
	at   time.Time
	took time.Duration
}

func startWatch(t *testing.T, s *server, credential string) *watch {
	t.Helper()
	w := &watch{}
	ctx, end := context.WithCancel(context.WithoutCancel(t.Context()))
	w.end = end
	speak := []client{s.overConnect(t, credential), s.overGRPC(t, credential)}
	for i := range 32 {
		w.callers.Go(func() {
			for ctx.Err() == nil {
				start := time.Now()
				k, err := speak[i%len(speak)].issue(context.WithoutCancel(ctx), fmt.Sprintf("zone-%d", i), 10*time.Second)
				w.note(received{k, time.Now(), time.Since(start)}, err)
			}
		})
	}
	t.Cleanup(func() { end(); w.callers.Wait() })
	return w
}

func (w *watch) note(r received, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.failures = append(w.failures, failure{err, r.took})
		return
	}
	w.got = append(w.got, r)
}

// wantFrom waits until many tokens in a row are signed by a key that is the one.
func (w *watch) wantFrom(t *testing.T, who string, is func(kid string) bool) {
	t.Helper()
	const row = 100
	eventually(t, time.Minute, fmt.Sprint(row)+" tokens in a row are signed by "+who, func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		if len(w.got) < row {
			return false
		}
		for _, r := range w.got[len(w.got)-row:] {
			if !is(kidIn(t, r.token)) {
				return false
			}
		}
		return true
	})
}

// gap is the longest time between two moments in which nobody got a token.
func (w *watch) gap(from, to time.Time) (longest time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	last := from
	for _, r := range w.got {
		if r.at.Before(from) || r.at.After(to) {
			continue
		}
		longest, last = max(longest, r.at.Sub(last)), r.at
	}
	return max(longest, to.Sub(last))
}

func (w *watch) slowest(from time.Time) (longest time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.got {
		if r.at.After(from) {
			longest = max(longest, r.took)
		}
	}
	return longest
}

// stop returns the tokens, and fails the test for requests that failed: there was a
// key to sign with all the time.
func (w *watch) stop(t *testing.T) (tokens []issued) {
	t.Helper()
	w.end()
	w.callers.Wait()
	for i, f := range w.failures {
		if i < 5 {
			t.Errorf("a request failed after %s: %v", f.took, f.err)
		}
	}
	for _, r := range w.got {
		tokens = append(tokens, r.issued)
	}
	return tokens
}

func kidIn(t *testing.T, token string) string {
	t.Helper()
	text, err := base64.RawURLEncoding.DecodeString(strings.SplitN(token, ".", 2)[0])
	if err != nil {
		t.Fatal(err)
	}
	var header struct{ KID string }
	if err := json.Unmarshal(text, &header); err != nil {
		t.Fatal(err)
	}
	return header.KID
}
