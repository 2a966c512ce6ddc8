package token_test

import (
	"cmp"
	"compress/gzip"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	feedURL        = "https://tokens.example.com/mint"
	feedCredential = "zmt_secret"
)

// feedServer serves the revocation feed of a keyset, by polling and streaming. It
// fails the test when it is asked in a way that it should not be.
type feedServer struct {
	t      testing.TB
	keyset string

	mu         sync.Mutex
	epoch      string
	seq        int64
	horizon    int64 // tombstones up to here are gone
	rows       map[string]feedRow
	pageSize   int
	credential string
	compress   bool

	status     int         // of polls, if not 0
	streamCode int         // of streams, if not 0
	header     http.Header // of both
	streamBody string      // of a stream that is not one, if not ""
	endCode    string      // with which streams end at once, if not ""
	silent     bool        // streams stop saying anything
	bad        string      // page that is sent instead, if not ""
	badOnce    bool        // and then not again
	cutAt      int         // page of a stream in which it is cut, from 1
	pause      time.Duration

	changed   chan struct{} // closed at the next change
	midReset  map[int64]bool
	polls     []time.Time
	streams   []time.Time
	confirmed int
	resets    int
	sent      int // entries
}

type feedRow struct {
	seq, exp int64
	lifted   bool
}

// wirePage is a page as polling gives it.
type wirePage struct {
	Keyset  string           `json:"keyset"`
	Epoch   string           `json:"epoch"`
	Seq     int64            `json:"seq"`
	Reset   bool             `json:"reset"`
	More    bool             `json:"more"`
	Revoked []wireRevocation `json:"revoked"`
	Lifted  []string         `json:"lifted"`
}

type wireRevocation struct {
	ID  string `json:"jti"`
	Exp int64  `json:"exp"`
}

// wireMessage is a page as a stream gives it.
type wireMessage struct {
	Epoch   string              `json:"epoch,omitempty"`
	Seq     int64               `json:"seq,omitempty,string"`
	Reset   bool                `json:"reset,omitempty"`
	More    bool                `json:"more,omitempty"`
	Revoked []wireStringRevoked `json:"revoked,omitempty"`
	Lifted  []string            `json:"lifted,omitempty"`
}

type wireStringRevoked struct {
	ID  string `json:"jti,omitempty"`
	Exp int64  `json:"exp,omitempty,string"`
}

func newFeedServer(t testing.TB) *feedServer {
	return &feedServer{
		t: t, keyset: "zone", epoch: "epoch-1", rows: map[string]feedRow{}, pageSize: 1000, credential: feedCredential,
		changed: make(chan struct{}), midReset: map[int64]bool{},
	}
}

// set changes the server.
func (s *feedServer) set(change func(*feedServer)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s)
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *feedServer) revoke(exp int64, ids ...string) {
	s.set(func(s *feedServer) {
		for _, id := range ids {
			s.seq++
			s.rows[id] = feedRow{seq: s.seq, exp: exp}
		}
	})
}

func (s *feedServer) lift(id string) {
	s.set(func(s *feedServer) {
		s.seq++
		s.rows[id] = feedRow{seq: s.seq, exp: s.rows[id].exp, lifted: true}
	})
}

// counts returns how many polls and streams were begun, and resets sent.
func (s *feedServer) counts() (polls, streams, resets int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.polls), len(s.streams), s.resets
}

// page returns what follows. mu is held.
func (s *feedServer) page(epoch string, since int64) wirePage {
	p := wirePage{Keyset: s.keyset, Epoch: s.epoch, Seq: s.seq}
	p.Reset = epoch != s.epoch || since > s.seq || since < s.horizon && !s.midReset[since]
	if p.Reset {
		since = 0
		s.resets++
	}
	var ids []string
	for id, row := range s.rows {
		if row.seq > since {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b string) int { return cmp.Compare(s.rows[a].seq, s.rows[b].seq) })
	if len(ids) > s.pageSize {
		ids, p.More = ids[:s.pageSize], true
		p.Seq = s.rows[ids[s.pageSize-1]].seq
		s.midReset[p.Seq] = true
	}
	for _, id := range ids {
		if row := s.rows[id]; row.lifted {
			p.Lifted = append(p.Lifted, id)
		} else {
			p.Revoked = append(p.Revoked, wireRevocation{id, row.exp})
		}
	}
	s.sent += len(ids)
	return p
}

func (s *feedServer) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	s.mu.Lock()
	credential, header, pause := s.credential, s.header, s.pause
	s.mu.Unlock()
	if wait(req.Context(), pause) != nil {
		return
	}
	for name, values := range header {
		w.Header()[name] = values
	}
	if req.Header.Get("Authorization") != "Bearer "+credential {
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprintf(w, "bad credential %q", req.Header.Get("Authorization"))
		return
	}
	switch {
	case req.Method == http.MethodPost && req.URL.Path == "/mint/zonemint.v1.RevocationService/WatchRevocations":
		s.serveStream(w, req)
	case req.Method == http.MethodGet && req.URL.Path == "/mint/keysets/"+s.keyset+"/revocations":
		s.servePoll(w, req)
	default:
		s.t.Errorf("%s %s was asked for", req.Method, req.URL)
	}
}

func (s *feedServer) servePoll(w http.ResponseWriter, req *http.Request) {
	if req.Header.Get("Accept") != "application/json" {
		s.t.Errorf("poll with header %v", req.Header)
	}
	q := req.URL.Query()
	since, err := strconv.ParseInt(q.Get("since"), 10, 64)
	if err != nil || q.Get("limit") != "10000" || len(q) != 2 && len(q) != 3 || q.Has("epoch") != (len(q) == 3) {
		s.t.Errorf("poll of %v", req.URL)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.polls = append(s.polls, time.Now())
	if s.status != 0 {
		w.WriteHeader(s.status)
		return
	}
	p := s.page(q.Get("epoch"), since)
	etag := fmt.Sprintf(`"%s-%d"`, s.epoch, s.seq)
	w.Header().Set("ETag", etag)
	if req.Header.Get("If-None-Match") == etag {
		if p.Seq != since || p.Reset {
			s.t.Errorf("a tag was sent with since=%d, which is not the end", since)
		}
		s.confirmed++
		w.WriteHeader(http.StatusNotModified)
		return
	}
	body, _ := json.Marshal(p)
	if s.bad != "" {
		body = []byte(s.takeBad())
	}
	if !s.compress {
		w.Write(body)
		return
	}
	if req.Header.Get("Accept-Encoding") != "gzip" {
		s.t.Errorf("gzip is not accepted: %v", req.Header)
	}
	w.Header().Set("Content-Encoding", "gzip")
	z := gzip.NewWriter(w)
	if _, err := z.Write(body); err == nil {
		_ = z.Close() // the client may be gone
	}
}

func (s *feedServer) serveStream(w http.ResponseWriter, req *http.Request) {
	s.mu.Lock()
	s.streams = append(s.streams, time.Now())
	code, body, endCode := s.streamCode, s.streamBody, s.endCode
	s.mu.Unlock()
	epoch, since := s.readWatch(req)
	if code != 0 {
		w.WriteHeader(code)
		return
	}
	if body != "" {
		w.Write([]byte(body))
		return
	}
	w.Header().Set("Content-Type", "application/connect+json")
	w.WriteHeader(http.StatusOK)
	if endCode != "" {
		w.Write(envelope(2, fmt.Sprintf(`{"error":{"code":%q,"message":"not with %s"}}`, endCode, feedCredential)))
		return
	}
	s.sendPages(w, req, epoch, since)
}

func (s *feedServer) readWatch(req *http.Request) (epoch string, since int64) {
	h := req.Header
	if h.Get("Content-Type") != "application/connect+json" || h.Get("Connect-Protocol-Version") != "1" || h.Get("Connect-Accept-Encoding") != "identity" || h.Get("Accept-Encoding") != "identity" {
		s.t.Errorf("stream with header %v", h)
	}
	data, err := io.ReadAll(req.Body)
	if err != nil || len(data) < 5 || data[0] != 0 || int(binary.BigEndian.Uint32(data[1:])) != len(data)-5 {
		s.t.Errorf("stream of %q, %v", data, err)
		return "", 0
	}
	var m struct {
		Keyset, Epoch string
		Since         int64 `json:",string"`
	}
	if err := json.Unmarshal(data[5:], &m); err != nil || m.Keyset != s.keyset {
		s.t.Errorf("stream of %q, %v", data, err)
	}
	return m.Epoch, m.Since
}

func (s *feedServer) sendPages(w http.ResponseWriter, req *http.Request, epoch string, since int64) {
	for n := 1; ; n++ {
		s.mu.Lock()
		p, changed, silent, bad, cutAt := s.page(epoch, since), s.changed, s.silent, s.takeBad(), s.cutAt
		s.mu.Unlock()
		if silent {
			<-req.Context().Done()
			return
		}
		m := wireMessage{Epoch: p.Epoch, Seq: p.Seq, Reset: p.Reset, More: p.More, Lifted: p.Lifted}
		for _, e := range p.Revoked {
			m.Revoked = append(m.Revoked, wireStringRevoked(e))
		}
		text, _ := json.Marshal(m)
		if bad != "" {
			text = []byte(bad)
		}
		message := envelope(0, string(text))
		if n == cutAt {
			w.Write(message[:len(message)-3])
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}
		w.Write(message)
		w.(http.Flusher).Flush()
		epoch, since = p.Epoch, p.Seq
		if p.More {
			continue
		}
		select {
		case <-req.Context().Done():
		case <-changed:
		case <-time.After(10 * time.Second):
		}
		if req.Context().Err() != nil {
			return // whatever has changed since, nobody reads it
		}
	}
}

// takeBad returns the bad page to send. mu is held.
func (s *feedServer) takeBad() string {
	bad := s.bad
	if s.badOnce {
		s.bad = ""
	}
	return bad
}

func envelope(flags byte, message string) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{flags}, uint32(len(message))), message...)
}

// handlerTransport asks a handler without a socket, so that it can be used in a
// synctest bubble.
type handlerTransport struct {
	t       testing.TB
	handler http.Handler
	running sync.WaitGroup
}

func (c *handlerTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancel(req.Context())
	r, w := io.Pipe()
	out := &pipeWriter{header: http.Header{}, w: w, started: make(chan int, 1)}
	inner := req.Clone(ctx)
	if inner.Body == nil {
		inner.Body = http.NoBody
	}
	c.running.Go(func() {
		defer cancel()
		defer func() {
			if p := recover(); p != nil {
				w.CloseWithError(io.ErrUnexpectedEOF)
				out.once.Do(func() { close(out.started) })
			}
		}()
		c.handler.ServeHTTP(out, inner)
		out.WriteHeader(http.StatusOK)
		_ = w.Close()
	})
	// Not ctx: the handler ends it too, perhaps before its answer is looked at.
	select {
	case code, ok := <-out.started:
		if !ok {
			return nil, io.ErrUnexpectedEOF
		}
		context.AfterFunc(req.Context(), func() { w.CloseWithError(context.Canceled) })
		return &http.Response{StatusCode: code, Header: out.header, Body: &pipeBody{r, cancel}, Request: req}, nil
	case <-req.Context().Done():
		cancel()
		return nil, req.Context().Err()
	}
}

type pipeBody struct {
	*io.PipeReader
	cancel func()
}

func (b *pipeBody) Close() error {
	b.cancel()
	return b.PipeReader.Close()
}

type pipeWriter struct {
	header  http.Header
	w       *io.PipeWriter
	once    sync.Once
	started chan int
}

func (w *pipeWriter) Header() http.Header { return w.header }
func (w *pipeWriter) Flush()              {}

func (w *pipeWriter) WriteHeader(code int) {
	w.once.Do(func() {
		w.header = w.header.Clone()
		w.started <- code
	})
}

func (w *pipeWriter) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.w.Write(p)
}

// brokenTransport fails, with an error as net/http has them.
type brokenTransport struct{ err error }

func (c brokenTransport) RoundTrip(*http.Request) (*http.Response, error) { return nil, c.err }

func ids(prefix string, n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = prefix + "-" + strings.Repeat("0", i%3) + strconv.Itoa(i)
	}
	return list
}
