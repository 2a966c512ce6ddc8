package service

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"

	v1 "github.com/zonemint/zonemint/proto/zonemint/v1/zonemintv1connect"
	"github.com/zonemint/zonemint/service/caller"
	"github.com/zonemint/zonemint/service/keyring"
	"github.com/zonemint/zonemint/store"
)

const (
	feedMetric       = "/keysets/{keyset}/revocations"
	defaultFeedLimit = 10000
	maxFeedLimit     = 50000
)

// serveRevocations is GET /keysets/{keyset}/revocations: the feed of a keyset, for
// those who would rather ask now and then than hold a stream.
func (s *Service) serveRevocations(w http.ResponseWriter, r *http.Request, name string) {
	start, request := time.Now(), newRequestID()
	w.Header().Set(requestIDHeader, request)
	who, begun, err := s.revocationsOf(w, r, name)
	s.metrics.called(r.Context(), feedMetric, start, err)
	if err == nil {
		return
	}
	out := s.edge(r.Context(), r.Method+" "+feedMetric, request, who, err)
	if begun {
		// A list that ends early looks whole, and would let revoked tokens
		// pass. This cuts the connection, which no reader takes for an end.
		panic(http.ErrAbortHandler)
	}
	for _, h := range []string{"Etag", "Content-Type", "Vary"} {
		w.Header().Del(h)
	}
	w.Header().Set("Cache-Control", "no-store")
	_ = connect.NewErrorWriter().Write(w, r, out) // the client is gone if it fails
}

// revocationsOf answers, and says who asked and whether the answer had begun when
// it failed.
func (s *Service) revocationsOf(w http.ResponseWriter, r *http.Request, name string) (who caller.Caller, begun bool, err error) {
	ctx := r.Context()
	if who, err = s.whoCalls(ctx, r.Header, v1.RevocationServiceWatchRevocationsProcedure); err != nil {
		return who, false, err
	}
	if err := who.MayCall(s.methods, v1.RevocationServiceWatchRevocationsProcedure); err != nil {
		return who, false, err
	}
	ks, err := s.visible(who, name)
	if err != nil {
		return who, false, err
	}
	q, err := parseFeedQuery(r.URL.RawQuery)
	if err != nil {
		return who, false, err
	}
	h := w.Header()
	h.Set("Vary", "Accept, Accept-Encoding")
	h.Set("Cache-Control", "private, no-cache")
	h.Set("X-Content-Type-Options", "nosniff")
	if wantsText(r.Header["Accept"]) {
		begun, err = s.serveList(w, r, who, ks, q)
	} else {
		begun, err = s.serveFeed(w, r, ks, q)
	}
	return who, begun, err
}

// feedQuery is what a request says of the reader.
type feedQuery struct {
	from  store.FeedPosition
	limit int
	whole bool // it said nothing
}

// parseFeedQuery is strict: a reader whose position is not understood would be
// sent everything, each time it asks.
func parseFeedQuery(raw string) (q feedQuery, err error) {
	values, err := url.ParseQuery(raw)
	if err != nil {
		return q, &invalid{"query", "cannot be read"}
	}
	for name, v := range values {
		if (name != "since" && name != "epoch" && name != "limit") || len(v) != 1 {
			return q, &invalid{"query", "may have since, epoch and limit, each of them once"}
		}
	}
	q = feedQuery{limit: defaultFeedLimit, whole: len(values) == 0}
	var since int64
	if values.Has("since") {
		if since, err = strconv.ParseInt(values.Get("since"), 10, 64); err != nil || since < 0 {
			return q, &invalid{"since", "is not a position"}
		}
	}
	if values.Has("limit") {
		if q.limit, err = strconv.Atoi(values.Get("limit")); err != nil || q.limit < 1 || q.limit > maxFeedLimit {
			return q, &invalid{"limit", fmt.Sprintf("must be a number from 1 to %d", maxFeedLimit)}
		}
	}
	q.from, err = feedPosition(values.Get("epoch"), since)
	return q, err
}

// feedDoc is a page of the feed as JSON.
type feedDoc struct {
	Keyset  string         `json:"keyset"`
	Epoch   string         `json:"epoch"`
	Seq     int64          `json:"seq"`
	Reset   bool           `json:"reset"`
	More    bool           `json:"more"`
	Revoked []revokedEntry `json:"revoked"`
	Lifted  []string       `json:"lifted"`
}

type revokedEntry struct {
	JTI string `json:"jti"`
	Exp int64  `json:"exp"`
}

func newFeedDoc(keyset string, p store.FeedPage) feedDoc {
	d := feedDoc{
		Keyset: keyset, Epoch: p.Epoch.String(), Seq: p.Seq, Reset: p.Reset, More: p.More,
		Revoked: []revokedEntry{}, Lifted: []string{},
	}
	for _, e := range p.Entries {
		if e.LiftedAt.IsZero() {
			d.Revoked = append(d.Revoked, revokedEntry{e.JTI, wholeSeconds(e.ExpiresAt).Unix()})
		} else {
			d.Lifted = append(d.Lifted, e.JTI)
		}
	}
	return d
}

// serveFeed answers with a page as JSON.
func (s *Service) serveFeed(w http.ResponseWriter, r *http.Request, ks *keyring.Keyset, q feedQuery) (begun bool, err error) {
	ctx, cancel := context.WithTimeout(r.Context(), callTimeout)
	defer cancel()
	if r.Header.Get("If-None-Match") != "" {
		head, err := s.feedHead(ctx, ks)
		if err != nil {
			return false, err
		}
		// A page that goes up to the head is what the reader would get now. A
		// page that did not would have another tag.
		if notModified(w, r, feedTag("feed", head, q.from.Seq)) {
			return false, nil
		}
	}
	page, err := s.feed.ReadStore(ctx, ks.ID, q.from, q.limit)
	if err != nil {
		return false, err
	}
	text, err := json.Marshal(newFeedDoc(ks.Name, page))
	if err != nil {
		return false, fmt.Errorf("rendering the feed: %w", err)
	}
	w.Header().Set("Etag", feedTag("feed", store.FeedPosition{Epoch: page.Epoch, Seq: page.Seq}, q.from.Seq))
	w.Header().Set("Content-Type", "application/json")
	if r.Method == http.MethodHead {
		return false, nil
	}
	b := s.body(w, r)
	defer b.abandon()
	if _, err := b.Write(append(text, '\n')); err != nil {
		return true, err
	}
	return true, b.Close()
}

// feedHead returns where a feed stands. Not the follower's word for it, which is
// a moment old: whoever has just revoked something is to find it.
func (s *Service) feedHead(ctx context.Context, ks *keyring.Keyset) (store.FeedPosition, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	heads, err := s.store.FeedHeads(ctx)
	return heads[ks.ID], err
}

// feedTag returns the entity tag of what follows a position, up to another one, in
// one of the forms. It is a weak one: what has expired may be left out, and
// compressing makes other bytes.
func feedTag(form string, upTo store.FeedPosition, since int64) string {
	return fmt.Sprintf(`W/"%s.%s.%d.%d"`, form, upTo.Epoch, since, upTo.Seq)
}

// notModified answers that the reader has the newest already, if it has.
func notModified(w http.ResponseWriter, r *http.Request, tag string) bool {
	for _, v := range r.Header["If-None-Match"] {
		for known := range strings.SplitSeq(v, ",") {
			known = strings.TrimSpace(known)
			if known == "*" || strings.TrimPrefix(known, "W/") == strings.TrimPrefix(tag, "W/") {
				w.Header().Set("Etag", tag)
				w.WriteHeader(http.StatusNotModified)
				return true
			}
		}
	}
	return false
}
