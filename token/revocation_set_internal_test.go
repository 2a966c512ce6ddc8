package token

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"
)

// appendJTI appends the nth of a series of different UUIDs.
func appendJTI(dst []byte, n uint64) []byte {
	var raw [16]byte
	binary.BigEndian.PutUint64(raw[:], 0x0190_0000_0000_7000+n>>12<<16|n&0xfff)
	binary.BigEndian.PutUint64(raw[8:], n*0x9e3779b97f4a7c15)
	dst = append(hex.AppendEncode(dst, raw[:4]), '-')
	dst = append(hex.AppendEncode(dst, raw[4:6]), '-')
	dst = append(hex.AppendEncode(dst, raw[6:8]), '-')
	dst = append(hex.AppendEncode(dst, raw[8:10]), '-')
	return hex.AppendEncode(dst, raw[10:])
}

func jti(n uint64) string { return string(appendJTI(nil, n)) }

// filledSet has n entries that do not expire.
func filledSet(n uint64) *revocationSet {
	s := newRevocationSet()
	buf := make([]byte, 0, 36)
	for i := range n {
		buf = appendJTI(buf[:0], i)
		s.add(buf, never, 0)
	}
	return s
}

// checkSet fails unless the tables are in order and the counts are right.
func checkSet(t *testing.T, s *revocationSet) {
	t.Helper()
	var used, slots int
	for n := range s.shards {
		sh := &s.shards[n]
		inShard := 0
		for i, e := range sh.table {
			if e.until == 0 {
				continue
			}
			inShard++
			home := sh.table.home(e.hash)
			if i < home || int(e.hash>>(64-shardBits)) != n {
				t.Fatalf("shard %d: entry of home %d is at %d", n, home, i)
			}
			if i > 0 && i > home && (sh.table[i-1].until == 0 || sh.table[i-1].hash > e.hash) {
				t.Fatalf("shard %d: slot %d is free or out of order", n, i-1)
			}
		}
		if inShard != sh.used {
			t.Fatalf("shard %d has %d entries, counted %d", n, inShard, sh.used)
		}
		used, slots = used+inShard, slots+len(sh.table)
	}
	if int64(used) != s.count.Load() || int64(slots) != s.slots.Load() {
		t.Fatalf("set has %d entries in %d slots, counted %d in %d", used, slots, s.count.Load(), s.slots.Load())
	}
}

func TestRevocationSetAgainstMap(t *testing.T) {
	for seed := range uint64(8) {
		r := rand.New(rand.NewPCG(seed, 1))
		s, model, now := newRevocationSet(), map[string]uint32{}, uint32(1000)
		universe := 1 << (2 + 2*seed) // from four jtis to 65,536
		for step := range 30_000 {
			id := jti(r.Uint64N(uint64(universe)))
			switch r.IntN(8) {
			case 0, 1, 2, 3:
				until := now - 20 + r.Uint32N(3000)
				s.add([]byte(id), until, now)
				model[id] = until
			case 4:
				s.remove([]byte(id))
				delete(model, id)
			case 5:
				now += r.Uint32N(3)
			default:
				if got, want := s.contains(id, now), model[id] > now; got != want {
					t.Fatalf("seed %d, step %d: got %t, want %t", seed, step, got, want)
				}
			}
			if step%5000 == 0 {
				s.sweep(now)
				checkSet(t, s)
			}
		}
		for id, until := range model {
			if got := s.contains(id, now); got != (until > now) {
				t.Fatalf("seed %d: got %t for one until %d at %d", seed, got, until, now)
			}
		}
	}
}

func TestRevocationSetTakesAnyString(t *testing.T) {
	s := newRevocationSet()
	for _, id := range []string{"1", "\x00", "\x00\x00", "ä", "0190", string(make([]byte, 255))} {
		if s.contains(id, 0) {
			t.Errorf("%q is there", id)
		}
		s.add([]byte(id), 5, 0)
		if !s.contains(id, 4) || s.contains(id, 5) {
			t.Errorf("%q is not there until 5", id)
		}
	}
}

// Hashes that collide in 64 bits, and tables that are full to the end.
func TestRevocationTableCollisions(t *testing.T) {
	s := newRevocationSet()
	sh := &s.shards[shards-1]
	for check := range uint32(longestTail) {
		f := fingerprint{^uint64(0), check}
		i, found := sh.table.find(f)
		if found {
			t.Fatalf("%d is there", check)
		}
		s.insert(sh, i, slot{f.hash, f.check, never}, 0)
		checkSet(t, s)
	}
	for check := range uint32(longestTail) {
		if _, found := sh.table.find(fingerprint{^uint64(0), check}); !found {
			t.Fatalf("%d is not there", check)
		}
	}
}

// Twenty bytes for an entry, at any size. Memory is what the allocator says too.
func TestRevocationSetMemory(t *testing.T) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.GC() // what pools hold goes in the second
	runtime.ReadMemStats(&before)
	s, buf := newRevocationSet(), make([]byte, 0, 36)
	const n = 600_000
	for i := range uint64(n) {
		buf = appendJTI(buf[:0], i)
		s.add(buf, never, 0)
		if i >= 300_000 && i%10_000 == 0 && s.bytes() > 20*s.count.Load() {
			t.Fatalf("%d bytes for %d entries", s.bytes(), s.count.Load())
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 20*n || grown < s.bytes()*9/10 {
		t.Errorf("the heap grew by %d bytes for %d entries, %d were counted", grown, n, s.bytes())
	}
	runtime.KeepAlive(s)
}

func TestRevocationSetForgetsExpired(t *testing.T) {
	s := newRevocationSet()
	const n = 100_000
	for i := range uint64(n) {
		s.add([]byte(jti(i)), uint32(100+i%2*100), 0)
	}
	full := s.bytes()
	s.sweep(150)
	checkSet(t, s)
	if got := s.count.Load(); got != n/2 || s.bytes() > full*6/10 {
		t.Errorf("%d entries in %d of %d bytes are left", got, s.bytes(), full)
	}
	if s.contains(jti(0), 150) || !s.contains(jti(1), 150) {
		t.Error("the wrong half is left")
	}
	s.sweep(200)
	if got := s.count.Load(); got != 0 || s.bytes() > 64*shards*(1+smallestTable) {
		t.Errorf("%d entries in %d bytes are left", got, s.bytes())
	}
	// Without a sweep they go when room is needed.
	for i := range uint64(10 * n) {
		s.add([]byte(jti(i)), uint32(i/100+2), uint32(i/100))
	}
	checkSet(t, s)
	if got := s.count.Load(); got > 20_000 {
		t.Errorf("%d entries are left of 200 that count", got)
	}
}

// An entry that stays is there at all times, whatever moves round it.
func TestRevocationSetReadersDoNotMiss(t *testing.T) {
	s := newRevocationSet()
	const stay = 2000
	for i := range uint64(stay) {
		s.add([]byte(jti(i)), never, 0)
	}
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			for i := uint64(0); ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				if !s.contains(jti(i%stay), 1) || s.contains(jti(1<<40+i), 1) {
					t.Error("a reader was told wrong")
					return
				}
			}
		})
	}
	for round := range 3 {
		for i := range uint64(30_000) {
			s.add([]byte(jti(stay+i)), uint32(round+2), uint32(round))
		}
		for i := range uint64(15_000) {
			s.remove([]byte(jti(stay + 2*i)))
		}
		s.sweep(uint32(round + 2))
	}
	close(stop)
	readers.Wait()
	checkSet(t, s)
}

// Only what still counts at a time can have been forgotten then.
func TestRevocationSetKnowsThatItForgot(t *testing.T) {
	s := newRevocationSet()
	s.add([]byte("over"), 5, 10)
	if !s.forgot(4) || s.forgot(5) {
		t.Error("what was not taken in is not noted")
	}
	s.add([]byte("a"), 100, 10)
	s.remove([]byte("a"))
	s.sweep(200)
	if s.forgot(5) {
		t.Error("what was lifted is noted")
	}
	for i := range uint64(5000) {
		s.add([]byte(jti(i)), 100, 10)
	}
	s.sweep(99)
	if s.forgot(5) {
		t.Error("a sweep is noted that dropped nothing")
	}
	s.sweep(200)
	if !s.forgot(99) || s.forgot(200) {
		t.Error("a sweep is not noted")
	}
}

func TestRevocationSetExtend(t *testing.T) {
	s := newRevocationSet()
	const leeway = uint32(MaxLeeway / time.Second)
	for _, exp := range []int64{5000, 1000, 9000} {
		s.extend(&page{revoked: []revocation{{[]byte("a"), exp}}, lifted: [][]byte{[]byte("a")}}, 10)
		if want := max(uint32(exp), 5000) + leeway; s.until([]byte("a")) != want {
			t.Errorf("after %d: revoked until %d, want %d", exp, s.until([]byte("a")), want)
		}
	}
}

func TestStamp(t *testing.T) {
	for at, want := range map[int64]uint32{-5: 0, 0: 0, 1763712000: 1763712000, never: never - 1, 1 << 40: never - 1} {
		if got := stamp(time.Unix(at, 0)); got != want {
			t.Errorf("%d: got %d, want %d", at, got, want)
		}
	}
}

// BenchmarkRevocationSet asks a set of five million.
func BenchmarkRevocationSet(b *testing.B) {
	const n = 5_000_000
	begin := time.Now()
	s := filledSet(n)
	filled := time.Since(begin)
	ids := make([]string, 1<<16)
	for _, hit := range []bool{true, false} {
		from := uint64(0)
		if !hit {
			from = n
		}
		for i := range ids {
			ids[i] = jti(from + rand.Uint64N(n))
		}
		b.Run(fmt.Sprintf("hit=%t", hit), func(b *testing.B) {
			i := 0
			for b.Loop() {
				if s.contains(ids[i&(1<<16-1)], 1) != hit {
					b.Fatal("told wrong")
				}
				i++
			}
			b.ReportMetric(float64(s.bytes())/n, "bytes/entry")
			b.ReportMetric(float64(filled.Nanoseconds())/n, "ns/insert")
		})
	}
}
