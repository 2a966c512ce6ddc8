package token_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

const keysURL = "https://tokens.example.com/keysets/zone/jwks.json"

// keyServer answers for a JWK set without a socket, so that it can be used in a
// synctest bubble. Like a server and a connection it checks what it is sent,
// confirms what the client has, ends with the request's context, and gives a body
// that must be closed.
type keyServer struct {
	t testing.TB

	mu           sync.Mutex
	status       int
	body         string
	etag         string
	cacheControl string
	location     string
	delay        time.Duration
	down         error
	requests     []time.Time
	confirmed    int // answers with status 304
	open         int // bodies not closed
}

func newKeyServer(t testing.TB, body string) *keyServer {
	s := &keyServer{t: t, status: http.StatusOK, body: body, etag: `"1"`, cacheControl: "public, max-age=100"}
	t.Cleanup(func() {
		if s.open != 0 {
			t.Errorf("%d response bodies were not closed", s.open)
		}
	})
	return s
}

// set changes the server.
func (s *keyServer) set(change func(*keyServer)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s)
}

func (s *keyServer) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.requests)
}

func (s *keyServer) RoundTrip(req *http.Request) (*http.Response, error) {
	s.check(req)
	s.mu.Lock()
	s.requests = append(s.requests, time.Now())
	delay := s.delay
	s.mu.Unlock()
	if err := wait(req.Context(), delay); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down != nil {
		return nil, s.down
	}
	return s.answer(req), nil
}

func (s *keyServer) check(req *http.Request) {
	if req.Method != http.MethodGet || req.Body != nil {
		s.t.Errorf("request is a %s, body %v", req.Method, req.Body)
	}
	if req.URL.Hostname() != "tokens.example.com" && req.URL.Hostname() != "127.0.0.1" {
		s.t.Errorf("request went to %s", req.URL.Host)
	}
	if !strings.Contains(req.Header.Get("Accept"), "application/json") {
		s.t.Errorf("Accept is %q", req.Header.Get("Accept"))
	}
	if tag, sent := req.Header["If-None-Match"]; sent && tag[0] == "" {
		s.t.Error("If-None-Match is empty")
	}
	if _, bounded := req.Context().Deadline(); !bounded {
		s.t.Error("request has no deadline")
	}
}

func (s *keyServer) answer(req *http.Request) *http.Response {
	resp := &http.Response{StatusCode: s.status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}, Request: req}
	body := s.body
	if s.location != "" && !strings.HasSuffix(req.URL.Path, "/moved.json") {
		resp.StatusCode, body = http.StatusTemporaryRedirect, "moved"
		resp.Header.Set("Location", s.location)
	}
	if s.etag != "" {
		resp.Header.Set("ETag", s.etag)
		if resp.StatusCode == http.StatusOK && req.Header.Get("If-None-Match") == s.etag {
			resp.StatusCode, body = http.StatusNotModified, ""
			s.confirmed++
		}
	}
	if s.cacheControl != "" {
		resp.Header.Set("Cache-Control", s.cacheControl)
	}
	s.open++
	resp.Body = &serverBody{Reader: bytes.NewReader([]byte(body)), ctx: req.Context(), server: s}
	return resp
}

type serverBody struct {
	io.Reader
	ctx    context.Context
	server *keyServer
	closed bool
}

func (b *serverBody) Read(p []byte) (int, error) {
	if b.closed {
		return 0, errors.New("read of a closed body")
	}
	if err := b.ctx.Err(); err != nil {
		return 0, err
	}
	return b.Reader.Read(p)
}

func (b *serverBody) Close() error {
	if !b.closed {
		b.closed = true
		b.server.set(func(s *keyServer) { s.open-- })
	}
	return nil
}

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return ctx.Err()
	}
}
