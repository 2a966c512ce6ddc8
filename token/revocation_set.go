package token

import (
	"hash/maphash"
	"math"
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// How full the table of a shard may become, and how full it is after it was
// rebuilt: between 16/0.92 and 16/0.84 bytes for an entry. Fuller tables make
// inserting slow, greater steps waste memory.
const (
	fullest = 0.92
	rebuilt = 0.84
	// thinnest is how little of a table may be in use before a sweep makes it
	// smaller: 20 bytes for an entry.
	thinnest = 0.80
)

const (
	shardBits = 6
	shards    = 1 << shardBits
	// smallestTable, in slots, is never made smaller.
	smallestTable = 16
	// longestTail is room behind the slots at which entries are at home, for
	// those that were pushed beyond the end. It is taken for more than that once in
	// millions of tables, and then the table is rebuilt.
	longestTail = 128
	slotSize    = 16
)

// never is the stamp of what does not end before the year 2106.
const never = math.MaxUint32

// revocationSet holds jtis with the time until which each is revoked, in about 18
// bytes each, and at most 20 once there are some hundred thousand. Any number of
// goroutines may ask while one changes it.
//
// It does not hold the jtis, but 96 bits of two keyed hashes of each. So a jti that
// was not added is taken for one of n that were with a probability of n/2^96, for five
// million 6e-23; the hashes are keyed anew in each set, so that nobody can look
// for such a jti. An entry that was added is always found.
//
// Every shard is a hash table with linear probing whose entries are in the order
// of their hashes. That keeps probes short in a full table, for misses too; lets a
// table be rebuilt in one pass; and leaves no marks where entries were removed.
type revocationSet struct {
	seeds [2]maphash.Seed
	count atomic.Int64 // entries, also expired ones that were not swept yet
	slots atomic.Int64 // of all tables
	// Nothing was dropped, or not taken in, that is revoked at this time or later.
	dropped atomic.Uint32
	shards  [shards]shard
}

type shard struct {
	mu    sync.RWMutex // only the writer locks it for writing, and then briefly
	table table
	used  int
	_     [8]byte // one cache line each
}

// fingerprint stands for a jti.
type fingerprint struct {
	hash  uint64 // decides about shard and place
	check uint32
}

// slot is an entry, or none if until is 0.
type slot struct {
	hash  uint64
	check uint32
	until uint32 // Unix time in seconds: the first at which it is not revoked; or never
}

// table is the slots of a shard. Entries are sorted by hash; none is before its
// home, and no slot between its home and itself is free.
type table []slot

func newRevocationSet() *revocationSet {
	return &revocationSet{seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}}
}

// stamp is a time as the set keeps it, a bit less than never.
func stamp(t time.Time) uint32 {
	return uint32(min(max(t.Unix(), 0), never-1))
}

// contains says whether the jti is revoked at that time.
func (s *revocationSet) contains(jti string, now uint32) bool {
	f := fingerprint{maphash.String(s.seeds[0], jti), uint32(maphash.String(s.seeds[1], jti))}
	sh := s.shard(f)
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	i, found := sh.table.find(f)
	return found && sh.table[i].until > now
}

// add revokes the jti until a time, whatever was said of it before.
func (s *revocationSet) add(jti []byte, until, now uint32) {
	f := s.fingerprint(jti)
	sh := s.shard(f)
	i, found := sh.table.find(f)
	switch {
	case found:
		sh.mu.Lock()
		sh.table[i].until = until
		sh.mu.Unlock()
	case until <= now:
		s.drop(until)
	default:
		s.insert(sh, i, slot{f.hash, f.check, until}, now)
	}
}

// until says until when the jti is revoked, 0 if it is not there.
func (s *revocationSet) until(jti []byte) uint32 {
	f := s.fingerprint(jti)
	sh := s.shard(f)
	i, found := sh.table.find(f)
	if !found {
		return 0
	}
	return sh.table[i].until
}

// forgot says whether an entry may have been dropped that is revoked at that time,
// which is so if the clock went back. A reader asks after contains.
func (s *revocationSet) forgot(now uint32) bool { return now < s.dropped.Load() }

// drop notes that entries which end then, or before, are going to be missing.
func (s *revocationSet) drop(end uint32) {
	s.dropped.Store(max(s.dropped.Load(), end))
}

// insert puts the entry where find said that it belongs.
func (s *revocationSet) insert(sh *shard, i int, e slot, now uint32) {
	end := sh.table.free(i)
	if end == len(sh.table) || float64(sh.used+1) > fullest*float64(len(sh.table)) {
		s.rebuild(sh, now, 0)
		i, end = sh.table.room(e)
	}
	for end == len(sh.table) { // its tail is full
		s.rebuild(sh, now, len(sh.table)+len(sh.table)/16+1)
		i, end = sh.table.room(e)
	}
	sh.mu.Lock()
	copy(sh.table[i+1:end+1], sh.table[i:end])
	sh.table[i] = e
	sh.used++
	sh.mu.Unlock()
	s.count.Add(1)
}

// remove forgets the jti.
func (s *revocationSet) remove(jti []byte) {
	f := s.fingerprint(jti)
	sh := s.shard(f)
	i, found := sh.table.find(f)
	if !found {
		return
	}
	end := i + 1 // of those that move one back, closer to their homes
	for end < len(sh.table) && sh.table[end].until != 0 && sh.table.home(sh.table[end].hash) < end {
		end++
	}
	sh.mu.Lock()
	copy(sh.table[i:end-1], sh.table[i+1:end])
	sh.table[end-1] = slot{}
	sh.used--
	sh.mu.Unlock()
	s.count.Add(-1)
}

// sweep forgets expired entries where that saves memory. Elsewhere they wait
// until their table is rebuilt.
func (s *revocationSet) sweep(now uint32) {
	for i := range s.shards {
		sh := &s.shards[i]
		if live := sh.table.live(now); len(sh.table) > smallestTable && float64(live) < thinnest*float64(len(sh.table)) {
			s.rebuild(sh, now, 0)
		}
	}
}

// rebuild gives the shard a table of at least that many slots without expired
// entries. Readers go on with the old one meanwhile.
func (s *revocationSet) rebuild(sh *shard, now uint32, size int) {
	live := sh.table.live(now)
	size = max(size, tableSize(live), smallestTable)
	next, fits := sh.table.copyLive(size, now)
	for !fits {
		size += size/16 + 1
		next, fits = sh.table.copyLive(size, now)
	}
	if live < sh.used {
		s.drop(now)
	}
	s.count.Add(int64(live - sh.used))
	s.slots.Add(int64(len(next) - len(sh.table)))
	sh.mu.Lock()
	sh.table, sh.used = next, live
	sh.mu.Unlock()
}

// tableSize is how many slots to ask for. The allocator rounds large sizes up to a
// multiple of 8 KiB: half of that is left away, or it could make a table of
// 100 KiB 8 percent emptier than it should be.
func tableSize(entries int) int {
	const block = 8192 / slotSize
	size := int(float64(entries)/rebuilt) + 1
	if size > 8*block {
		size = (size + block/2) / block * block
	}
	return size
}

// bytes is the memory that the set takes. The size classes of the allocator are in
// it, since tables fill theirs.
func (s *revocationSet) bytes() int64 {
	const fixed = shards * 64
	return fixed + slotSize*s.slots.Load()
}

func (s *revocationSet) fingerprint(jti []byte) fingerprint {
	return fingerprint{maphash.Bytes(s.seeds[0], jti), uint32(maphash.Bytes(s.seeds[1], jti))}
}

func (s *revocationSet) shard(f fingerprint) *shard {
	return &s.shards[f.hash>>(64-shardBits)]
}

// find returns the entry, or where it belongs.
func (t table) find(f fingerprint) (int, bool) {
	if len(t) == 0 {
		return 0, false
	}
	i := t.home(f.hash)
	for ; i < len(t); i++ {
		e := &t[i]
		if e.hash >= f.hash && (e.hash != f.hash || e.check == f.check) || e.until == 0 {
			return i, e.until != 0 && e.hash == f.hash
		}
	}
	return i, false
}

// room returns where a new entry belongs and the free slot behind.
func (t table) room(e slot) (i, end int) {
	i, _ = t.find(fingerprint{e.hash, e.check})
	return i, t.free(i)
}

// home is the first slot at which an entry may be. The greater the hash, the
// greater the home.
func (t table) home(hash uint64) int {
	homes := len(t) - min(len(t)/8, longestTail)
	i, _ := bits.Mul64(hash<<shardBits, uint64(homes))
	return int(i)
}

// free returns the first free slot from i on, len(t) if there is none.
func (t table) free(i int) int {
	for i < len(t) && t[i].until != 0 {
		i++
	}
	return i
}

func (t table) live(now uint32) int {
	n := 0
	for i := range t {
		if t[i].until > now {
			n++
		}
	}
	return n
}

// copyLive returns a table of at least that many slots with what has not expired, if
// it fits.
func (t table) copyLive(size int, now uint32) (table, bool) {
	next := slices.Grow(table(nil), size)
	next = next[:cap(next)] // what the allocator gives beyond size is of use too
	free := 0
	for _, e := range t {
		if e.until <= now {
			continue
		}
		i := max(free, next.home(e.hash))
		if i == len(next) {
			return nil, false
		}
		next[i], free = e, i+1
	}
	return next, true
}
