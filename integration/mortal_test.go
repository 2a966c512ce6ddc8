package integration

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/store/storetest/invariant"
)

// rotationPatience is how long the end of a rotation is waited for. It takes two
// seconds, and some more where a replica that died held something.
const rotationPatience = 40 * time.Second

// mortal is an installation whose replicas die on demand, and whose keys are in
// a directory that outlives them.
type mortal struct {
	*installation
	keys  string
	flags []string
	count *tally
	nature
	scene string // what the tally says is played
}

// nature is how the directory of keys behaves.
type nature struct {
	visibleAfter time.Duration // how old keys are when it shows them
	delay        time.Duration // how long it takes to make one
}

// tally counts what a test has been through.
type tally struct {
	mu        sync.Mutex
	points    map[string]bool
	kills     int
	halfMade  int // kills that left a key half made
	rotations int
	keys      int
	tokens    int
	orphans   int           // looks at the backend that found some
	slowest   time.Duration // from a start to the end of the rotation that was under way
}

func (c *tally) add(change func(*tally)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(c)
}

func (c *tally) report(t *testing.T) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t.Logf("%d points, %d kills, %d of them with a key half made, %d rotations completed, the slowest %s after a start, %d keys made, %d tokens verified, orphans %d",
		len(c.points), c.kills, c.halfMade, c.rotations, c.slowest.Round(10*time.Millisecond), c.keys, c.tokens, c.orphans)
}

// newMortal sets zonemint up with an administrator and without keysets.
func newMortal(t *testing.T, db database, n nature, count *tally) *mortal {
	t.Helper()
	m := &mortal{installation: installAdmin(t, db, settings{}), keys: t.TempDir(), count: count, nature: n}
	name := "-sqlite"
	if db.setting != "sqlite" {
		name = "-postgres-file"
	}
	m.flags = []string{
		name, db.value, "-instance-key", filepath.Join(m.dir, "instance.key"), "-keys", m.keys,
		"-visible-after", n.visibleAfter.String(), "-create-delay", n.delay.String(),
	}
	return m
}

// doomed is a server that dies on demand.
type doomed struct {
	*server
	orders io.Writer
}

// launch starts a replica, perhaps one that dies at a point, and does not wait.
func (m *mortal) launch(t *testing.T, point string) doomed {
	t.Helper()
	cmd := exec.Command(os.Getenv(replicaVariable), append([]string{"-die", point}, m.flags...)...)
	orders, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	return doomed{launchCommand(t, cmd), orders}
}

// start starts a replica and waits until it listens.
func (m *mortal) start(t *testing.T) doomed {
	t.Helper()
	s := m.launch(t, "")
	s.awaitListening(t)
	return s
}

// arm has a running replica die at a point, from now on.
func (s doomed) arm(t *testing.T, point string) {
	t.Helper()
	if _, err := fmt.Fprintln(s.orders, point); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, "the replica knows where to die", func() bool {
		return strings.Contains(s.log.String(), "armed "+point+"\n")
	})
}

// wantDeath wants the replica to die at a point, and not otherwise.
func (m *mortal) wantDeath(t *testing.T, s doomed, point string) {
	t.Helper()
	select {
	case <-s.exited:
	case <-time.After(rotationPatience):
		t.Fatalf("point never reached: %s", point)
	}
	m.died(t, s, point)
}

// died wants a replica that has ended to have died at a point, and checks what it
// has left.
func (m *mortal) died(t *testing.T, s doomed, point string) {
	t.Helper()
	name, _, _ := strings.Cut(point, "@")
	status, _ := s.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !status.Signaled() || status.Signal() != syscall.SIGKILL || !strings.Contains(s.log.String(), "died at "+name+"\n") {
		t.Fatalf("point never reached: %s; the replica ended by itself: %s", point, s.cmd.ProcessState)
	}
	m.count.add(func(c *tally) { c.points[m.scene+": "+point] = true })
	m.dead(t)
}

// insist repeats an act until it is done, or the replica has ended.
func (s doomed) insist(t *testing.T, c client, act func(context.Context, client) error) {
	t.Helper()
	var err error
	for start := time.Now(); s.running(); time.Sleep(30 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
		err = act(ctx, c)
		cancel()
		if err == nil {
			return
		}
		if time.Since(start) > rotationPatience || codeOf(err) == connect.CodeInvalidArgument {
			t.Fatal("the act is refused all the time, for the last time:", err)
		}
	}
}

// states returns serial and state of every key, as the API has them.
func states(ctx context.Context, c client) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	resp, err := c.keys.ListSigningKeys(ctx, &pb.ListSigningKeysRequest{Keyset: "zone"})
	if err != nil {
		return "", err
	}
	var all []string
	for _, k := range resp.GetSigningKeys() {
		all = append(all, fmt.Sprintf("%d %s", k.GetSerial(), k.GetState()))
	}
	return strings.Join(all, ", "), nil
}

// await waits until the keys are in states that look right.
func await(t *testing.T, c client, what string, right func(states string) bool) time.Duration {
	t.Helper()
	var seen string
	var err error
	took := settles(rotationPatience, func() bool {
		seen, err = states(t.Context(), c)
		return err == nil && right(seen)
	})
	if took > rotationPatience {
		t.Fatalf("not within %s: %s; the keys are %q, error %v", rotationPatience, what, seen, err)
	}
	return took
}

// issueFor asks for a token of some lifetime.
func (c client) issueFor(ctx context.Context, zone string, lifetime time.Duration) (issued, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	resp, err := c.tokens.IssueZoneToken(ctx, &pb.IssueZoneTokenRequest{Zone: zone, ValidFor: durationpb.New(lifetime)})
	if err != nil {
		return issued{}, err
	}
	return issued{zone: zone, token: resp.GetToken(), jti: resp.GetJti()}, nil
}

// deeds counts the events of an act in the audit.
func (m *mortal) deeds(t *testing.T, act string) (n int) {
	t.Helper()
	m.db.each(t, "SELECT action FROM audit_events WHERE action = '"+act+"'", func(*sql.Rows) error {
		n++
		return nil
	})
	return n
}

// check looks at the database and the directory of keys behind everybody's back,
// and wants of them what has to hold at any moment: of the rows, and that every
// key has its row and no label two keys.
func (m *mortal) check(t *testing.T) {
	t.Helper()
	var labels []string
	for label, files := range m.files(t) {
		for range files {
			labels = append(labels, label)
		}
	}
	m.look(t, func(ctx context.Context, db *sql.DB) error {
		orphans := invariant.Backend(ctx, db, labels)
		if orphans != nil {
			m.count.add(func(c *tally) { c.orphans++ })
		}
		return errors.Join(invariant.Check(ctx, db), invariant.KIDs(ctx, db), orphans)
	})
}

// dead notes that a replica was killed, and checks what it has left.
func (m *mortal) dead(t *testing.T) {
	t.Helper()
	creating := 0
	m.db.each(t, "SELECT serial FROM signing_keys WHERE state = 'creating'", func(*sql.Rows) error {
		creating++
		return nil
	})
	m.count.add(func(c *tally) {
		if c.kills++; creating > 0 {
			c.halfMade++
		}
	})
	m.check(t)
}

// settled wants what holds when all that was begun is finished, besides what
// always holds: nothing is half made, every keyset has its successor, and every
// key that the database knows is in the directory. JWKS is what was served at
// last.
func (m *mortal) settled(t *testing.T, jwks []string) {
	t.Helper()
	m.check(t)
	m.look(t, func(ctx context.Context, db *sql.DB) error {
		return errors.Join(invariant.CheckSettled(ctx, db), invariant.JWKS(ctx, db, map[string][]string{"zone": jwks}))
	})
	files, keys := m.files(t), 0
	query := "SELECT label, serial, CASE WHEN destroyed_at IS NULL THEN 0 ELSE 1 END FROM signing_keys WHERE state <> 'failed'"
	m.db.each(t, query, func(r *sql.Rows) error {
		var label string
		var serial, destroyed int
		err := r.Scan(&label, &serial, &destroyed)
		if keys++; len(files[label]) != 1-destroyed {
			t.Errorf("the backend has %d keys of serial %d, want %d", len(files[label]), serial, 1-destroyed)
		}
		return err
	})
	m.count.add(func(c *tally) { c.keys += keys })
}

func (m *mortal) look(t *testing.T, check func(context.Context, *sql.DB) error) {
	t.Helper()
	db, err := sql.Open(m.db.driver, m.db.dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer shut(db)
	if err := check(t.Context(), db); err != nil {
		t.Error(err)
	}
}

// reconciled wants zonemint itself to find no key that it does not know, and to
// miss none. What was made just now it may not see yet.
func (s doomed) reconciled(t *testing.T, c client, n nature) {
	t.Helper()
	s.insist(t, c, func(ctx context.Context, c client) error {
		resp, err := c.keys.ReconcileSigningKeys(ctx, &pb.ReconcileSigningKeysRequest{})
		if err != nil {
			return err
		}
		if len(resp.GetUnknown()) > 0 || len(resp.GetFailed()) > 0 || n.visibleAfter == 0 && len(resp.GetMissing()) > 0 {
			t.Errorf("key reconcile finds %v", resp)
		}
		return nil
	})
}

// files returns the keys in the directory, by label.
func (m *mortal) files(t *testing.T) map[string][]string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(m.keys, "key-*.json"))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]string{}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var k struct{ Label string }
		if err := json.Unmarshal(text, &k); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		files[k.Label] = append(files[k.Label], filepath.Base(name))
	}
	return files
}

// sideBySide runs a test for each of a list, a few at a time. They mostly wait,
// so they are more than there are processors, which t.Parallel would not allow.
func sideBySide[T any](t *testing.T, width int, list []T, name func(T) string, test func(*testing.T, T)) {
	t.Helper()
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, width)
	for _, one := range list {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			t.Run(name(one), func(t *testing.T) { test(t, one) })
		})
	}
}
