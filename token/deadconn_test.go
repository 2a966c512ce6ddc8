package token_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zonemint/zonemint/token"
)

// relay passes connections on to a server, until it dies: then it says nothing more on
// those that there are, without closing them, and passes on new ones.
type relay struct {
	net.Listener
	server string
	age    atomic.Int64 // deaths

	mu    sync.Mutex
	conns []net.Conn
}

// behindRelay returns an h2 server, the relay before it, and its address.
func behindRelay(t *testing.T, handler http.Handler) (server *httptest.Server, r *relay, url string) {
	t.Helper()
	server = httptest.NewUnstartedServer(handler)
	server.EnableHTTP2 = true
	server.StartTLS()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r = &relay{Listener: l, server: server.Listener.Addr().String()}
	go r.serve()
	t.Cleanup(func() {
		_ = l.Close()
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, c := range r.conns {
			_ = c.Close()
		}
		server.CloseClientConnections()
		server.Close()
	})
	return server, r, "https://" + l.Addr().String()
}

func (r *relay) serve() {
	for {
		client, err := r.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", r.server)
		if err != nil {
			_ = client.Close()
			continue
		}
		r.mu.Lock()
		r.conns = append(r.conns, client, server)
		r.mu.Unlock()
		age := r.age.Load()
		go r.pass(client, server, age)
		go r.pass(server, client, age)
	}
}

func (r *relay) pass(from, to net.Conn, age int64) {
	buf := make([]byte, 1<<14)
	for {
		n, err := from.Read(buf)
		dead := r.age.Load() != age
		if err != nil {
			if !dead {
				_ = to.Close()
			}
			return
		}
		if !dead {
			_, _ = to.Write(buf[:n])
		}
	}
}

// h2 is a transport without pings, which would take longer than a test may.
func h2(server *httptest.Server) *http.Transport {
	t := server.Client().Transport.(*http.Transport).Clone()
	t.ForceAttemptHTTP2 = true
	return t
}

// patience is less by far than what TCP has with a dead connection.
const patience = time.Minute

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for begin := time.Now(); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Since(begin) > patience {
			t.Errorf("%s: not within %s", what, patience)
			return
		}
	}
}

// A connection whose other end is gone is left after the first request that fails.
func TestRevocationsLeaveDeadConnection(t *testing.T) {
	t.Parallel()
	s := newFeedServer(t)
	server, relay, url := behindRelay(t, onlyHTTP2(t, s))
	r, err := token.NewRemoteRevocations(url+"/mint", "zone", token.RevocationOptions{
		Poll: true, PollInterval: 10 * time.Millisecond, Timeout: time.Second, Credential: credential, Transport: h2(server),
	})
	if err != nil {
		t.Fatal(err)
	}
	stop := runFeed(t, r)
	defer stop()
	<-r.Ready()
	for i := range 2 {
		relay.age.Add(1)
		id := fmt.Sprint("a-", i)
		s.revoke(farAway, id)
		eventually(t, "revoked after the connection died", func() bool {
			revoked, _ := r.Revoked(t.Context(), id)
			return revoked
		})
	}
}

func TestRemoteKeysLeaveDeadConnection(t *testing.T) {
	t.Parallel()
	body := setBody(t, "ES256")
	set := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.Copy(w, strings.NewReader(body)) })
	server, relay, url := behindRelay(t, onlyHTTP2(t, set))
	r, err := token.NewRemoteKeys(url, token.RemoteOptions{
		MinInterval: 10 * time.Millisecond, MaxInterval: 10 * time.Millisecond, Timeout: time.Second, Transport: h2(server),
	})
	if err != nil {
		t.Fatal(err)
	}
	stop := runUntilStopped(t, r.Run)
	defer stop()
	eventually(t, "fetched", func() bool { return r.Status().Usable })
	wantKey(t, r, "ES256", "ok")
	for range 2 {
		relay.age.Add(1)
		died := time.Now()
		eventually(t, "fetched after the connection died", func() bool { return r.Status().FetchedAt.After(died) })
	}
}

func onlyHTTP2(t *testing.T, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.ProtoMajor != 2 {
			t.Errorf("request over %s", req.Proto)
		}
		next.ServeHTTP(w, req)
	})
}
