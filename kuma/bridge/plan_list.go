package bridge

import (
	"time"

	"github.com/zonemint/zonemint/kuma"
)

// expiryGrace is how much longer than its token is valid an entry stays in a list:
// clocks of control planes may be behind.
const expiryGrace = time.Minute

// revoked is a token ID of a revocation feed, and when the token expires.
type revoked struct {
	jti string
	exp int64 // in seconds since 1970
}

// verdict is what zonemint says of an entry in a list that may not belong there any
// more.
type verdict int

const (
	notAsked verdict = iota
	keep             // it is somebody else's, or nobody knows
	gone             // it is zonemint's, and the token has expired or the revocation was lifted
)

// listInput is what decides about a list of revoked token IDs.
type listInput struct {
	there   bool      // the secret exists
	actual  string    // what is in it
	revoked []revoked // what should be in it, of all keysets that share the list
	now     time.Time
	verdict func(jti string) verdict
}

// listPlan is what becomes of a list.
type listPlan struct {
	list    kuma.List // as it should be; empty: the secret should not be there
	change  bool      // it is not as it should be
	added   []string
	removed []string
	others  int      // entries that are kept and are not in zonemint's feed
	untidy  bool     // what is there is not in the form that control planes read
	ask     []string // entries about which a verdict would help
}

// planList compares a list with the feed. Entries that are not in the feed stay in
// their place unless the verdict is that they are gone; what is missing comes behind
// them, in the order of the feed. By this process's clock it is only decided about
// which entries to ask, since that clock may be wrong.
func planList(in listInput) listPlan {
	var p listPlan
	feed := make(map[string]revoked, len(in.revoked))
	for _, r := range in.revoked {
		feed[r.jti] = r
	}
	old := in.now.Add(-expiryGrace).Unix()
	isGone := func(jti string) bool {
		v := in.verdict(jti)
		if v == notAsked {
			p.ask = append(p.ask, jti)
		}
		return v == gone
	}
	actual := kuma.ParseList(in.actual)
	there := make(map[string]bool, len(actual))
	for _, jti := range actual {
		there[jti] = true
		r, ok := feed[jti]
		switch {
		case (!ok || r.exp <= old) && isGone(jti):
			p.removed = append(p.removed, jti)
			continue
		case !ok:
			p.others++
		}
		p.list = append(p.list, jti)
	}
	for _, r := range in.revoked {
		if there[r.jti] || r.exp <= old && isGone(r.jti) {
			continue
		}
		there[r.jti] = true // the feeds of two keysets may have it
		p.list, p.added = append(p.list, r.jti), append(p.added, r.jti)
	}
	p.untidy = in.there && !tidy(in.actual, actual)
	p.change = len(p.added) > 0 || len(p.removed) > 0 || p.untidy
	return p
}

// tidy says whether text is just how control planes read the list. They tolerate one
// newline at its end, which goes with the next change. An empty text is not
// tidy: it is one empty entry.
func tidy(text string, l kuma.List) bool {
	want := 0
	for _, jti := range l {
		want += len(jti) + 1
	}
	// ParseList leaves out and repeats nothing, so the length tells.
	return len(l) > 0 && len(text) == want-1
}
