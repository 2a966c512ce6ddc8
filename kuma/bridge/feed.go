package bridge

import (
	"time"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
)

// sweepInterval is how often is forgotten what is of no use any more.
const sweepInterval = 10 * time.Minute

// feed is what has been read of a keyset's revocation feed.
type feed struct {
	epoch string // "" if it has to be read from the beginning
	seq   int64
	set   entries
	next  *entries // replaces set when a reset has been read to its end
	// complete says that the feed has been read to its end once.
	complete bool
	heard    time.Time // when there was no more to read, last
	swept    time.Time
}

// entries are revocations in the order in which they came.
type entries struct {
	by    map[string]numbered
	order []string
}

type numbered struct {
	exp int64
	n   int // where in order; an ID that was lifted may be there again
}

func (e *entries) add(jti string, exp int64) {
	if e.by == nil {
		e.by = map[string]numbered{}
	}
	if old, ok := e.by[jti]; ok {
		e.by[jti] = numbered{exp, old.n}
		return
	}
	e.by[jti] = numbered{exp, len(e.order)}
	e.order = append(e.order, jti)
}

// all returns the revocations in their order.
func (e *entries) all() []revoked {
	out := make([]revoked, 0, len(e.by))
	for i, jti := range e.order {
		if v, ok := e.by[jti]; ok && v.n == i {
			out = append(out, revoked{jti, v.exp})
		}
	}
	return out
}

// sweep forgets revocations of tokens that have expired, and the places of what is
// gone.
func (e *entries) sweep(expired func(jti string) bool) {
	kept := e.all()
	*e = entries{}
	for _, r := range kept {
		if !expired(r.jti) {
			e.add(r.jti, r.exp)
		}
	}
}

// take takes a page in, and returns the IDs about which it says something.
func (f *feed) take(page *pb.WatchRevocationsResponse, now time.Time) (about []string) {
	if page.GetReset_() || page.GetEpoch() != f.epoch {
		f.next = &entries{}
	}
	into := []*entries{&f.set}
	if f.next != nil {
		into = append(into, f.next)
	}
	for _, jti := range page.GetLifted() {
		about = append(about, jti)
		for _, e := range into {
			delete(e.by, jti)
		}
	}
	for _, r := range page.GetRevoked() {
		about = append(about, r.GetJti())
		for _, e := range into {
			e.add(r.GetJti(), r.GetExp())
		}
	}
	f.epoch, f.seq = page.GetEpoch(), page.GetSeq()
	if page.GetMore() {
		return about
	}
	if f.next != nil {
		f.set, f.next = *f.next, nil
	}
	f.complete, f.heard = true, now
	return about
}

// forget drops now and then what is of no use any more. Only zonemint's clock tells
// what has expired: by another one that is wrong, revocations would be lost.
func (f *feed) forget(now time.Time, expired func(jti string) bool) {
	if now.Sub(f.swept) > sweepInterval {
		f.set.sweep(expired)
		f.swept = now
	}
}
