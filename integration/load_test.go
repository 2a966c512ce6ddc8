package integration

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"
)

// issuers is how many ask at the same time.
const issuers = 64

// load is many callers who ask for tokens one after the other, and keep what
// they receive.
type load struct {
	ended   atomic.Bool
	callers sync.WaitGroup

	mu       sync.Mutex
	tokens   []issued
	failures []failure
}

// failure is a request that brought no token.
type failure struct {
	err  error
	took time.Duration
}

// startLoad begins a load on a server, half of it over Connect and half over
// gRPC.
func startLoad(t *testing.T, s *server, credential string, round int) *load {
	t.Helper()
	l := &load{}
	ctx := context.WithoutCancel(t.Context()) // every request has its own end
	clients := []client{s.overConnect(t, credential), s.overGRPC(t, credential)}
	for i := range issuers {
		l.callers.Go(func() { l.ask(ctx, clients[i%len(clients)], fmt.Sprintf("load-%d", i), round) })
	}
	t.Cleanup(func() { l.stop() })
	return l
}

func (l *load) ask(ctx context.Context, c client, zone string, round int) {
	for !l.ended.Load() {
		start := time.Now()
		k, err := c.issue(ctx, zone, 10*time.Second)
		k.round = round
		l.note(k, failure{err, time.Since(start)})
		if err != nil {
			time.Sleep(10 * time.Millisecond) // a refused connection costs nothing
		}
	}
}

func (l *load) note(k issued, f failure) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if f.err != nil {
		l.failures = append(l.failures, f)
		return
	}
	l.tokens = append(l.tokens, k)
}

// received returns how many tokens there are so far.
func (l *load) received() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.tokens)
}

// stop lets requests under way come to their end, and returns everything.
func (l *load) stop() ([]issued, []failure) {
	l.ended.Store(true)
	l.callers.Wait()
	return l.tokens, l.failures
}

// wantCodes fails the test for failures with a code that is not among those.
func wantCodes(t *testing.T, failures []failure, codes ...connect.Code) {
	t.Helper()
	seen := map[connect.Code]int{}
	for _, f := range failures {
		code := codeOf(f.err)
		if seen[code]++; seen[code] == 1 && !slices.Contains(codes, code) {
			t.Errorf("after %s a request failed with %v", f.took, f.err)
		}
	}
	t.Logf("failed requests: %v", seen)
}

// codeOf returns the code of an error. Connect's client takes a request that was
// never read for one that the caller gave up.
func codeOf(err error) connect.Code {
	if neverRead(err) {
		return connect.CodeUnavailable
	}
	return connect.CodeOf(err)
}

// neverRead says whether a request crossed the end of its connection on its way. A
// server that ends closes those which are idle as it sees them, and any server those
// on which nothing comes in the first seconds.
func neverRead(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// wantDistinct fails the test if two tokens have the same jti.
func wantDistinct(t *testing.T, tokens []issued) {
	t.Helper()
	seen := make(map[string]bool, len(tokens))
	for _, k := range tokens {
		if seen[k.jti] {
			t.Errorf("two tokens are called %s", k.jti)
		}
		seen[k.jti] = true
	}
}

// sample returns up to n of the tokens, spread evenly.
func sample(tokens []issued, n int) []issued {
	if len(tokens) <= n {
		return tokens
	}
	some := make([]issued, n)
	for i := range some {
		some[i] = tokens[i*len(tokens)/n]
	}
	return some
}
