package integration

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/zonemint/zonemint/store/storetest/invariant"
)

// TestCrashLoopLeavesNoUnknownKeys starts servers that make keys in a cloud's KMS, and
// kills each a moment later. New keys show late, and sometimes the answer that tells of
// one is lost. Whatever comes of it, every key in the cloud is one that the database
// knows, and in the end each keyset has one that signs.
func TestCrashLoopLeavesNoUnknownKeys(t *testing.T) {
	onBothClouds(t, func(t *testing.T, start startCloud) {
		accounts, starts := rounds(5, 10), rounds(3, 50)
		count := &crashTally{}
		began := time.Now()
		list := make([]int, accounts)
		for i := range list {
			list[i] = i
		}
		sideBySide(t, 5, list, strconv.Itoa, func(t *testing.T, _ int) {
			newCrashes(t, start(t, true), count).play(t, starts)
		})
		count.mu.Lock()
		defer count.mu.Unlock()
		t.Logf("%d starts within %s; killed %d times, %d times with a key half made, which was %d of them by then; "+
			"%d lost answers; %d keysets, %d keys made, all settled within %s of the last start",
			count.starts, time.Since(began).Round(time.Second), count.kills, count.halfMadeKills, count.halfMade,
			count.lost, count.keysets, count.keys, count.settled.Round(10*time.Millisecond))
		if count.halfMadeKills == 0 {
			t.Error("no server was killed while it made a key, so nothing was shown")
		}
	})
}

// crashTally counts what a test has been through.
type crashTally struct {
	mu                  sync.Mutex
	starts, kills       int
	halfMadeKills       int // that left some key half made
	halfMade            int // the most of them at a time
	lost, keysets, keys int
	settled             time.Duration // the longest
}

func (c *crashTally) add(change func(*crashTally)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(c)
}

// crashes is an installation with keys in an account of its own, whose servers are
// killed.
type crashes struct {
	*installation
	cloud   cloud
	keysets []keyset
	count   *crashTally
}

func newCrashes(t *testing.T, c cloud, count *crashTally) *crashes {
	t.Helper()
	return &crashes{installation: installAdmin(t, newSQLite(t, t.TempDir()), settings{}), cloud: c, count: count}
}

func (cr *crashes) play(t *testing.T, starts int) {
	for n := range starts {
		cr.crash(t, n)
		if t.Failed() {
			t.Fatalf("this was after start %d", n+1)
		}
	}
	s := cr.next(t)
	began := time.Now()
	s.awaitListening(t)
	cr.settle(t, began)
	cr.wantKeys(t)
	cr.reconciled(t, s)
	for _, k := range []keyset{cr.keysets[0], cr.keysets[len(cr.keysets)-1]} {
		wantValid(t, s.keys(t, k.name), issueFrom(t, s.overConnect(t, cr.admin), k.name, "after"))
	}
	s.stop(t)
	cr.wantKeys(t)
}

// next starts a server with a keyset more than the one before had.
func (cr *crashes) next(t *testing.T) *server {
	t.Helper()
	cr.keysets = append(cr.keysets, keyset{fmt.Sprintf("zone-%d", len(cr.keysets)+1), "zone", "ES256"})
	conf := inCloud(cr.cloud, cr.keysets...)
	conf.leaseTTL = crashLease
	cr.configure(t, cr.config, filepath.Join(cr.dir, "instance.key"), conf)
	cr.count.add(func(c *crashTally) { c.starts++ })
	return cr.launchWith(t, cr.cloud)
}

// crashLease is longer than a key takes to be made: until a server listens nobody
// renews its lease meanwhile.
const crashLease = 2 * shortLease

// crash starts a server and kills it: while it starts, while it makes the keys of the
// new keyset, or after a while, in which it finishes what others have begun.
func (cr *crashes) crash(t *testing.T, n int) {
	t.Helper()
	const soon = 1200 * time.Millisecond
	lose := rand.N(3) == 0
	heal := func() {}
	if lose {
		heal = cr.cloud.loseKey()
	}
	before := cr.cloud.calls()[cr.cloud.makes()]
	s := cr.next(t)
	switch n % 4 {
	case 0:
		time.Sleep(between(0, soon))
	case 2:
		time.Sleep(between(0, crashLease+lateWindow+2*time.Second))
	default:
		made := func() bool { return !s.running() || cr.cloud.calls()[cr.cloud.makes()] > before }
		eventually(t, recovery, "a key is made", made)
		time.Sleep(between(0, soon))
	}
	if !s.running() {
		t.Errorf("the server has ended by itself: %s", s.cmd.ProcessState)
	}
	s.kill()
	made := cr.cloud.calls()[cr.cloud.makes()] > before
	heal()
	half := cr.halfMade(t)
	cr.count.add(func(c *crashTally) {
		c.kills++
		if lose && made {
			c.lost++
		}
		if c.halfMade = max(c.halfMade, half); half > 0 {
			c.halfMadeKills++
		}
	})
	cr.check(t)
}

// halfMade counts the keys that are being made.
func (cr *crashes) halfMade(t *testing.T) (n int) {
	t.Helper()
	if _, err := os.Stat(cr.db.value); err != nil {
		return 0
	}
	cr.db.each(t, "SELECT serial FROM signing_keys WHERE state = 'creating'", func(*sql.Rows) error {
		n++
		return nil
	})
	return n
}

// check wants what has to hold at any moment: of the rows, and that every key in the
// cloud has its row and no label two keys.
func (cr *crashes) check(t *testing.T) {
	t.Helper()
	labels := cr.cloud.labels() // before the rows: they come before keys
	cr.look(t, func(ctx context.Context, db *sql.DB) error {
		return errors.Join(invariant.Check(ctx, db), invariant.KIDs(ctx, db), invariant.Backend(ctx, db, labels))
	})
}

func (cr *crashes) look(t *testing.T, check func(context.Context, *sql.DB) error) {
	t.Helper()
	db, err := sql.Open(cr.db.driver, cr.db.dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer shut(db)
	if err := check(t.Context(), db); err != nil {
		t.Error(err)
	}
}

// settle waits until nothing is half made.
func (cr *crashes) settle(t *testing.T, began time.Time) {
	t.Helper()
	eventually(t, time.Minute, "all keys are made", func() bool {
		all := firstKeys(t, cr.db)
		for _, keys := range all {
			if len(keys) != 2 || keys[0] != "1 active" || keys[1] != "2 published" {
				return false
			}
		}
		return len(all) == len(cr.keysets)
	})
	took := time.Since(began)
	cr.count.add(func(c *crashTally) {
		c.settled = max(c.settled, took)
		c.keysets += len(cr.keysets)
		c.keys += len(cr.cloud.labels())
	})
}

// wantKeys wants the cloud to have the keys of all rows, each once, and no others, and
// each keyset to have one that signs.
func (cr *crashes) wantKeys(t *testing.T) {
	t.Helper()
	cr.check(t)
	cr.look(t, invariant.CheckSettled)
	keys := map[string]int{}
	for _, label := range cr.cloud.labels() {
		keys[label]++
	}
	rows := 0
	cr.db.each(t, "SELECT label FROM signing_keys", func(r *sql.Rows) error {
		var label string
		err := r.Scan(&label)
		if rows++; keys[label] != 1 {
			t.Errorf("the cloud has %d keys labelled %s, want 1", keys[label], label)
		}
		return err
	})
	if rows != 2*len(cr.keysets) || len(keys) != rows {
		t.Errorf("%d keysets have %d keys in the database and %d in the cloud", len(cr.keysets), rows, len(keys))
	}
}

// reconciled wants zonemint itself to find no key that it does not know, and to miss
// none, once the last of them shows.
func (cr *crashes) reconciled(t *testing.T, s *server) {
	t.Helper()
	env := []string{"ZONEMINT_ADDR=http://" + s.public, "ZONEMINT_TOKEN_FILE=" + cr.adminToken}
	type result struct {
		Unknown, Missing, Failed []json.RawMessage
		Found                    int `json:",string"`
	}
	var o output
	took := settles(recovery, func() bool {
		o = runWith(t, env, os.Getenv(binaryVariable), "key", "reconcile", "-o", "json")
		var r result
		return o.code == 0 && json.Unmarshal([]byte(o.stdout), &r) == nil &&
			len(r.Unknown)+len(r.Missing)+len(r.Failed) == 0 && r.Found == 2*len(cr.keysets)
	})
	if took > recovery {
		t.Errorf("key reconcile, which is to find %d keys and nothing else: exit code %d\n%s%s", 2*len(cr.keysets), o.code, o.stdout, o.stderr)
	}
}
