package feed

import (
	"cmp"
	"slices"

	"github.com/google/uuid"

	"github.com/zonemint/zonemint/store"
)

// tail is the end of a feed in memory: all of its entries after floor, up to
// head. A tail of which nothing is known has no epoch.
type tail struct {
	floor   int64
	head    store.FeedPosition
	entries []store.Revocation // by seq
	// latest is the seq of the last entry of each jti. A jti that was revoked
	// and lifted again has two entries here, one in the database; a page with
	// both would leave it to chance what its reader makes of them.
	latest  map[string]int64
	changed chan struct{}
}

// reaches says whether what follows a position is here, all of it. Positions
// beyond the head may come from another replica, which is ahead, or out of the
// blue; only the database can tell.
func (t *tail) reaches(from store.FeedPosition) bool {
	return t.head.Epoch != uuid.Nil && from.Epoch == t.head.Epoch && from.Seq >= t.floor && from.Seq <= t.head.Seq
}

// restart forgets all entries. Readers read the database up to here.
func (t *tail) restart(head store.FeedPosition) {
	t.floor, t.head, t.entries, t.latest = head.Seq, head, nil, map[string]int64{}
}

// extend takes in the page that follows the head, and forgets the oldest entries
// beyond depth. It cuts in steps, so as not to copy the tail for every entry.
func (t *tail) extend(p store.FeedPage, depth int) {
	for _, e := range p.Entries {
		e.Reason, e.Caller = "", "" // no reader is told
		t.entries = append(t.entries, e)
		t.latest[e.JTI] = e.Seq
	}
	t.head.Seq = p.Seq
	surplus := len(t.entries) - depth
	if surplus <= depth/4 {
		return
	}
	for _, e := range t.entries[:surplus] {
		if t.latest[e.JTI] == e.Seq {
			delete(t.latest, e.JTI)
		}
	}
	t.floor = t.entries[surplus-1].Seq
	t.entries = slices.Clone(t.entries[surplus:])
}

// page returns what follows a position that the tail reaches.
func (t *tail) page(from store.FeedPosition, limit int) store.FeedPage {
	i, _ := slices.BinarySearchFunc(t.entries, from.Seq+1, func(e store.Revocation, seq int64) int { return cmp.Compare(e.Seq, seq) })
	p := store.FeedPage{Epoch: t.head.Epoch, Seq: t.head.Seq}
	for _, e := range t.entries[i:] {
		if len(p.Entries) == limit {
			p.More = true
			p.Seq = p.Entries[limit-1].Seq
			break
		}
		if t.latest[e.JTI] == e.Seq {
			p.Entries = append(p.Entries, e)
		}
	}
	return p
}
