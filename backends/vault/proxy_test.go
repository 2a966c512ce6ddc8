package vault_test

import (
	"net"
	"sync"
	"testing"
	"time"
)

// proxy stands between the backend and a server, and fails on demand.
type proxy struct {
	listener net.Listener
	target   string

	mu    sync.Mutex
	dead  bool // connections end at once
	delay time.Duration
	cutAt int // how many bytes of each answer arrive before the connection ends; 0 for all
	conns map[net.Conn]bool
	gate  sync.RWMutex // held for writing, nothing moves
}

func startProxy(tb testing.TB, target string) *proxy {
	tb.Helper()
	p := &proxy{target: target, conns: map[net.Conn]bool{}}
	var err error
	if p.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		tb.Fatal(err)
	}
	go p.accept()
	tb.Cleanup(func() {
		_ = p.listener.Close()
		p.set(func() { p.dead = true })
		p.cut()
	})
	return p
}

func (p *proxy) url() string { return "http://" + p.listener.Addr().String() }

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.target)
		if err != nil {
			_ = client.Close()
			continue
		}
		p.mu.Lock()
		if p.dead {
			_, _ = client.Close(), server.Close()
		} else {
			p.conns[client], p.conns[server] = true, true
			go p.forward(client, server, false)
			go p.forward(server, client, true)
		}
		p.mu.Unlock()
	}
}

func (p *proxy) forward(from, to net.Conn, answers bool) {
	defer func() { _, _ = from.Close(), to.Close() }()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		p.mu.Lock()
		delay, cutAt := p.delay, p.cutAt
		p.mu.Unlock()
		if answers {
			time.Sleep(delay)
		}
		p.gate.RLock()
		if answers && cutAt > 0 && n > cutAt {
			_, _ = to.Write(buf[:cutAt])
			p.gate.RUnlock()
			return
		}
		_, werr := to.Write(buf[:n])
		p.gate.RUnlock()
		if err != nil || werr != nil {
			return
		}
	}
}

func (p *proxy) set(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
}

// cut ends all connections that there are.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close()
	}
	clear(p.conns)
}

// stall lets nothing through until the function it returns is called.
func (p *proxy) stall() (flow func()) {
	p.gate.Lock()
	return p.gate.Unlock
}
