package postgres_test

import (
	"context"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zonemint/zonemint/store"
	"github.com/zonemint/zonemint/store/postgres/postgrestest"
)

// TestWatchSilentServer has a connection on which, from some moment on, nothing
// arrives and nothing is refused, as behind a firewall that has forgotten it.
func TestWatchSilentServer(t *testing.T) {
	t.Parallel()
	direct, err := url.Parse(postgrestest.New(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	s := newSilencer(ctx, t, direct.Host)
	through := *direct
	through.Host = s.addr
	e, other := open(t, through.String()), open(t, direct.String())

	woken := make(chan store.Topic, 100)
	done := make(chan error, 1)
	go func() { done <- e.Watch(ctx, func(topic store.Topic) { woken <- topic }) }()
	want := func(what string) {
		t.Helper()
		select {
		case <-woken:
		case <-time.After(time.Minute): // a silence is noticed within ten seconds
			t.Fatalf("not woken %s", what)
		}
	}
	notify := func() {
		t.Helper()
		if err := other.Update(t.Context(), func(tx store.Tx) error { return tx.Notify(t.Context(), store.TopicRing) }); err != nil {
			t.Fatal(err)
		}
	}
	want("at the start")
	want("at the start")
	notify()
	want("by a notification")
	s.silence()
	notify()
	want("after the silence")
	want("after the silence")
	cancel() // or closing the engine would wait for the silent connections
	<-done
}

// silencer passes connections on. Those that are open when it is told so fall
// silent: what is sent over them goes nowhere, and nobody is told. They end when
// the context does.
type silencer struct {
	addr   string
	target string
	silent atomic.Pointer[atomic.Bool] // of the connections that are being accepted
}

func newSilencer(ctx context.Context, t *testing.T, target string) *silencer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &silencer{addr: l.Addr().String(), target: target}
	s.silent.Store(new(atomic.Bool))
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { s.serve(ctx, client) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		wg.Wait()
	})
	return s
}

// silence silences the connections there are and lets later ones through.
func (s *silencer) silence() { s.silent.Swap(new(atomic.Bool)).Store(true) }

func (s *silencer) serve(ctx context.Context, client net.Conn) {
	defer client.Close() //nolint:errcheck // one way or another it is over
	server, err := net.Dial("tcp", s.target)
	if err != nil {
		return
	}
	defer server.Close() //nolint:errcheck // as above
	stop := context.AfterFunc(ctx, func() { _, _ = client.Close(), server.Close() })
	defer stop()
	silent := s.silent.Load()
	var wg sync.WaitGroup
	wg.Go(func() { passUnless(server, client, silent) })
	wg.Go(func() { passUnless(client, server, silent) })
	wg.Wait()
}

// passUnless passes on what comes from one side, or drops it, until either side
// closes.
func passUnless(to, from net.Conn, silent *atomic.Bool) {
	defer to.Close()   //nolint:errcheck // as above
	defer from.Close() //nolint:errcheck // as above
	buf := make([]byte, 1<<16)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		if silent.Load() {
			continue
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}
