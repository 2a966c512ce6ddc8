package integration

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
)

// width is how many installations die at the same time.
const width = 8

func newTally(t *testing.T) *tally {
	c := &tally{points: map[string]bool{}}
	t.Cleanup(func() { c.report(t) })
	return c
}

// TestKillAtEveryPoint kills doomeds before and after every commit, and around
// every call of the backend, by which a key comes to sign or to its end. Whoever
// comes after finishes what was begun, with one key for each serial.
func TestKillAtEveryPoint(t *testing.T) {
	all := fewDeaths()
	if rounds(0, 1) == 1 {
		all = deaths()
	}
	count := newTally(t)
	sideBySide(t, width, all, death.String, func(t *testing.T, d death) {
		if d.postgres {
			d.play(t, newPostgres(t), count)
		} else {
			d.play(t, newSQLite(t, t.TempDir()), count)
		}
	})
}

func (d death) play(t *testing.T, db database, count *tally) {
	m := newMortal(t, db, d.nature, count)
	m.scene = d.name
	s := m.start(t)
	c := s.overConnect(t, m.admin)
	tokens := d.begin(t, m, s, c)
	before := m.deeds(t, d.deed)

	s.arm(t, d.points[0])
	s.insist(t, c, d.act)
	m.wantDeath(t, s, d.points[0])
	_ = os.Remove(filepath.Join(m.keys, "stalled")) // where there is one
	asked := m.deeds(t, d.deed) > before
	for _, p := range d.points[1:] {
		s := m.launch(t, p)
		if !asked {
			s.awaitListening(t)
			c := s.overConnect(t, m.admin)
			s.insist(t, c, d.act)
		}
		m.wantDeath(t, s, p)
		asked = m.deeds(t, d.deed) > before
	}
	m.recover(t, &d, asked, tokens)
}

// begin brings the keyset to where the scenario begins, and returns the tokens
// that were issued by then.
func (d death) begin(t *testing.T, m *mortal, s doomed, c client) (tokens []issued) {
	t.Helper()
	if d.bare {
		return nil
	}
	m.found(t, s, c)
	if d.tokens {
		for range 3 {
			tokens = append(tokens, m.mustIssueSoon(t, s, c))
		}
	}
	if d.prepare != nil {
		d.prepare(t, m, s, c)
	}
	return tokens
}

// found makes the keyset, and waits until it signs and has a successor.
func (m *mortal) found(t *testing.T, s doomed, c client) {
	t.Helper()
	s.insist(t, c, scenarios()[0].act)
	await(t, c, "the keyset is complete", is(scenarios()[0].want))
}

// recover starts a replica that does not die and wants it to finish what was
// begun.
func (m *mortal) recover(t *testing.T, d *death, asked bool, tokens []issued) {
	t.Helper()
	start := time.Now()
	s := m.start(t)
	c := s.overConnect(t, m.admin)
	if !asked {
		s.insist(t, c, d.act)
	}
	await(t, c, fmt.Sprintf("the keys are %q", d.want), is(d.want))
	m.finished(start)
	tokens = append(tokens, m.mustIssueSoon(t, s, c))
	set := s.keys(t, "zone")
	wantValid(t, set, tokens...)
	m.count.add(func(c *tally) { c.tokens += len(tokens) })
	s.reconciled(t, c, m.nature)
	s.stop(t)
	m.settled(t, set.IDs())
}

func (m *mortal) finished(start time.Time) {
	m.count.add(func(c *tally) { c.rotations++; c.slowest = max(c.slowest, time.Since(start)) })
}

// mustIssueSoon issues a token. A replica on a busy machine may lose its lease,
// which is short here, for a moment.
func (m *mortal) mustIssueSoon(t *testing.T, s doomed, c client) (k issued) {
	t.Helper()
	s.insist(t, c, func(ctx context.Context, c client) (err error) {
		k, err = c.issueFor(ctx, "east", time.Hour)
		return err
	})
	return k
}

// TestKillAtAnyMoment kills doomeds at random moments, while rotations are asked
// for all the time and tokens are issued. Every rotation that was asked for
// completes, and no key is lost or made twice.
func TestKillAtAnyMoment(t *testing.T) {
	type world struct {
		number   int
		postgres bool
		nature
	}
	var worlds []world
	for i := range rounds(2, 8) {
		// Keys take long to make, so that many kills come in between.
		w := world{number: i, postgres: i%2 == 1, nature: nature{delay: 600 * time.Millisecond}}
		if i%4 < 2 {
			w.visibleAfter = seenAfter
		}
		worlds = append(worlds, w)
	}
	count := newTally(t)
	sideBySide(t, width, worlds, func(w world) string { return strconv.Itoa(w.number) }, func(t *testing.T, w world) {
		db := newSQLite
		if w.postgres {
			db = func(t *testing.T, _ string) database { return newPostgres(t) }
		}
		newMortal(t, db(t, t.TempDir()), w.nature, count).killAtRandom(t, rounds(3, 25))
	})
}

// killAtRandom kills doomeds one after the other.
func (m *mortal) killAtRandom(t *testing.T, kills int) {
	s := m.start(t)
	m.found(t, s, s.overConnect(t, m.admin))
	u := &unrest{}
	for n := range kills {
		if n > 0 {
			s = m.launch(t, "")
		}
		moment := between(0, 2*time.Second)
		if rand.N(3) > 0 { // otherwise it is killed while it starts, or finishes what is left
			if n > 0 {
				s.awaitListening(t)
			}
			m.complete(t, s)
		}
		stop := u.stir(t, s, m.admin, n)
		time.Sleep(moment)
		if !s.running() {
			t.Fatalf("the replica has ended by itself: %s", s.cmd.ProcessState)
		}
		s.kill()
		stop()
		m.dead(t)
		if t.Failed() {
			t.Fatalf("this was after kill %d", n+1)
		}
	}
	s = m.start(t)
	m.complete(t, s)
	good := u.unexpired()
	set := s.keys(t, "zone")
	wantValid(t, set, good...)
	s.reconciled(t, s.overConnect(t, m.admin), m.nature)
	s.stop(t)
	m.settled(t, set.IDs())
	wantDistinct(t, u.tokens)
	m.db.wantRows(t, u.tokens)
	m.verifyLedger(t)
	m.count.add(func(c *tally) { c.tokens += len(good) })
	t.Logf("%d tokens, %d of them live and verified; calls to rotate: %v", len(u.tokens), len(good), u.outcomes)
}

// complete asks for a rotation and waits until it is complete: another key signs,
// and it has a published successor.
func (m *mortal) complete(t *testing.T, s doomed) {
	t.Helper()
	start, c := time.Now(), s.overConnect(t, m.admin)
	var was string
	s.insist(t, c, func(ctx context.Context, c client) (err error) {
		if was, err = states(ctx, c); err != nil {
			return err
		}
		return rotate(false)(ctx, c)
	})
	before := serialIn(was, "active")
	await(t, c, "a rotation is complete", func(now string) bool {
		return serialIn(now, "active") > before && serialIn(now, "published") > 0 && serialIn(now, "creating") == 0
	})
	m.finished(start)
}

// serialIn returns the highest serial that is in a state, 0 if none is.
func serialIn(states, state string) (serial int) {
	for one := range strings.SplitSeq(states, ", ") {
		if text, ok := strings.CutSuffix(one, " "+state); ok {
			serial, _ = strconv.Atoi(text)
		}
	}
	return serial
}

// unrest is callers who ask for rotations and tokens without end.
type unrest struct {
	mu       sync.Mutex
	tokens   []issued
	expiries []time.Time
	outcomes map[string]int
}

// stir begins it as soon as the replica listens, and returns what ends it.
func (u *unrest) stir(t *testing.T, s doomed, credential string, round int) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if s.public == "" {
			select {
			case at := <-s.log.listening:
				s.public, s.private = at.Public, at.Private
			case <-ctx.Done():
				return
			}
		}
		c := s.overConnect(t, credential)
		wg.Go(func() { u.rotate(ctx, c) })
		u.issue(ctx, c, round)
	})
	return func() {
		cancel()
		wg.Wait()
	}
}

func (u *unrest) rotate(ctx context.Context, c client) {
	for ctx.Err() == nil {
		now := rand.N(2) == 0
		err := rotate(now)(ctx, c)
		u.mu.Lock()
		if u.outcomes == nil {
			u.outcomes = map[string]int{}
		}
		u.outcomes[outcome(err)]++
		u.mu.Unlock()
		time.Sleep(between(10*time.Millisecond, 150*time.Millisecond))
	}
}

func outcome(err error) string {
	if err == nil {
		return "ok"
	}
	if code := codeOf(err); code != connect.CodeUnknown && code != connect.CodeInternal {
		return code.String()
	}
	return err.Error()
}

// issue asks for tokens that live for a second or an hour, so that some keys are
// removed and others are not.
func (u *unrest) issue(ctx context.Context, c client, round int) {
	for n := 0; ctx.Err() == nil; n++ {
		lifetime := time.Second
		if round%2 == 0 {
			lifetime = time.Hour
		}
		k, err := c.issueFor(ctx, fmt.Sprintf("zone-%d", n), lifetime)
		if err == nil {
			k.round = round
			u.mu.Lock()
			u.tokens, u.expiries = append(u.tokens, k), append(u.expiries, time.Now().Add(lifetime))
			u.mu.Unlock()
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// unexpired returns the tokens that must still be good.
func (u *unrest) unexpired() []issued {
	var good []issued
	for i, k := range u.tokens {
		if time.Until(u.expiries[i]) > time.Minute {
			good = append(good, k)
		}
	}
	return good
}

// TestKillOneOfTwo kills one of two replicas at every point of a rotation. The
// other one finishes it.
func TestKillOneOfTwo(t *testing.T) {
	points := []string{"after:create", "before:signing-key.published"}
	natures := []nature{lately()}
	if rounds(0, 1) == 1 {
		natures = append(natures, promptly())
		points = append(slices.Clone(scenarios()[1].more),
			"before:keyset.rotate", "after:keyset.rotate", "before:signing-key.active", "after:signing-key.active",
			"before:claim", "after:claim", "before:signing-key.published", "after:signing-key.published",
			"before:load", "after:load", "before:heartbeat@20", "after:heartbeat@20")
	}
	var all []death
	for _, n := range natures {
		for _, p := range points {
			all = append(all, death{scenarios()[1], []string{p}, n, true})
		}
	}
	count := newTally(t)
	sideBySide(t, width/2, all, death.String, func(t *testing.T, d death) {
		d.playTwo(t, newMortal(t, newPostgres(t), d.nature, count))
	})
}

// playTwo asks for rotations until the one replica has died: it is left to chance
// which of the two takes a step.
func (d death) playTwo(t *testing.T, m *mortal) {
	one, other := m.start(t), m.start(t)
	onOne, onOther := one.overConnect(t, m.admin), other.overConnect(t, m.admin)
	m.found(t, one, onOne)
	tokens := []issued{m.mustIssueSoon(t, one, onOne), m.mustIssueSoon(t, other, onOther)}
	one.arm(t, d.points[0])
	for range 30 {
		var before string
		await(t, onOther, "the other replica answers", func(now string) bool {
			before = now
			return true
		})
		one.insist(t, onOne, d.act)
		await(t, onOther, "the rotation is complete, or somebody has died", func(now string) bool {
			return !one.running() || serialIn(now, "active") > serialIn(before, "active") && serialIn(now, "creating") == 0
		})
		if !one.running() {
			break
		}
	}
	if one.running() {
		t.Fatalf("point never reached: %s", d.points[0])
	}
	m.died(t, one, d.points[0])
	m.complete(t, other)
	tokens = append(tokens, m.mustIssueSoon(t, other, onOther))
	set := other.keys(t, "zone")
	wantValid(t, set, tokens...)
	m.count.add(func(c *tally) { c.tokens += len(tokens) })
	other.reconciled(t, onOther, m.nature)
	other.stop(t)
	m.settled(t, set.IDs())
}
