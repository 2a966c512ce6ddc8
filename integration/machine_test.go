package integration

import (
	"os"
	"slices"
	"sync"
	"testing"
	"time"
)

// machine notices when the machine that the tests run on keeps everybody waiting:
// it is stopped, has no processor to give, or its disk hangs. By as much may be late
// what has to be soon by the clock, and nobody else is to blame.
type machine struct {
	end chan struct{}

	mu     sync.Mutex
	pass   time.Time // when the pass under way began
	pauses []pause
}

type pause struct{ from, until time.Time }

// A pass takes a step, and some of them write to the disk. What they take beyond
// what is usual is a pause.
const (
	machineStep  = 20 * time.Millisecond
	machineSlack = 60 * time.Millisecond
	writesEvery  = 10 // passes
)

// watchMachine watches until stop is called.
func watchMachine() *machine {
	m := &machine{end: make(chan struct{}), pass: time.Now()}
	go m.watch()
	return m
}

// watchMachineIn watches until the test ends.
func watchMachineIn(t *testing.T) *machine {
	m := watchMachine()
	t.Cleanup(m.stop)
	return m
}

func (m *machine) stop() { close(m.end) }

func (m *machine) watch() {
	var disk *os.File
	for n := 1; ; n++ {
		select {
		case <-m.end:
			if disk != nil {
				shut(disk)
			}
			return
		case <-time.After(machineStep):
		}
		if n%writesEvery == 0 {
			disk = write(disk)
		}
		m.mu.Lock()
		now := time.Now()
		if usual := m.pass.Add(machineSlack); now.After(usual) {
			m.pauses = append(m.pauses, pause{usual, now})
		}
		m.pass = now
		m.mu.Unlock()
	}
}

// write has the disk take something in. Where it cannot, nobody waits for it.
func write(disk *os.File) *os.File {
	if disk == nil {
		file, err := os.CreateTemp("", "zonemint-machine-")
		if err != nil {
			return nil
		}
		_ = os.Remove(file.Name()) // the file stays as long as it is open
		disk = file
	}
	if _, err := disk.WriteAt([]byte{1}, 0); err == nil {
		_ = disk.Sync()
	}
	return disk
}

// within returns the pauses between two moments.
func (m *machine) within(from, until time.Time) (lengths []time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := m.pauses
	if usual := m.pass.Add(machineSlack); time.Now().After(usual) {
		all = append(slices.Clip(all), pause{usual, time.Now()})
	}
	for _, p := range all {
		if p.from.Before(from) {
			p.from = from
		}
		if p.until.After(until) {
			p.until = until
		}
		if d := p.until.Sub(p.from); d > 0 {
			lengths = append(lengths, d)
		}
	}
	return lengths
}

// paused returns how long the machine kept everybody waiting since a moment.
func (m *machine) paused(since time.Time) (total time.Duration) {
	for _, d := range m.within(since, time.Now()) {
		total += d
	}
	return total
}

// took returns how long something has taken since a moment, without what the machine
// took.
func (m *machine) took(since time.Time) time.Duration { return time.Since(since) - m.paused(since) }

// longest returns the longest pause between two moments.
func (m *machine) longest(from, until time.Time) (longest time.Duration) {
	for _, d := range m.within(from, until) {
		longest = max(longest, d)
	}
	return longest
}

// TestAPauseOfTheMachineIsNoticed has the watch miss some of its passes, as if
// the machine had been stopped.
func TestAPauseOfTheMachineIsNoticed(t *testing.T) {
	start := time.Now()
	seconds := func(n int) time.Duration { return time.Duration(n) * time.Second }
	at := func(n int) time.Time { return start.Add(seconds(n)) }
	m := &machine{pass: at(3600), pauses: []pause{{at(1), at(2)}, {at(5), at(9)}}}
	for _, c := range []struct {
		from, until, total, longest int
	}{{0, 10, 5, 4}, {0, 1, 0, 0}, {1, 6, 2, 1}, {6, 7, 1, 1}, {3, 4, 0, 0}} {
		var total time.Duration
		for _, d := range m.within(at(c.from), at(c.until)) {
			total += d
		}
		if longest := m.longest(at(c.from), at(c.until)); total != seconds(c.total) || longest != seconds(c.longest) {
			t.Errorf("from %d to %d: %s in all, the longest %s", c.from, c.until, total, longest)
		}
	}
	m = &machine{pass: time.Now().Add(-time.Hour)}
	if took := m.took(time.Now().Add(-time.Minute)); took > time.Second {
		t.Errorf("a pause that goes on counts for %s", took)
	}
}
