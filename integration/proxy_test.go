package integration

import (
	"net"
	"net/url"
	"sync"
	"testing"
)

// proxy stands between servers and their database, and fails on demand.
type proxy struct {
	listener net.Listener
	target   string

	mu     sync.Mutex
	dead   bool // connections end at once
	conns  map[net.Conn]bool
	gate   *gate   // that new connections go through
	closed []*gate // for good
}

// gate lets the data of some connections through, unless somebody holds it for
// writing.
type gate struct {
	sync.RWMutex
}

// proxied returns the database as servers reach it through a proxy.
func proxied(t *testing.T, db database) (database, *proxy) {
	t.Helper()
	u, err := url.Parse(db.dsn)
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{target: u.Host, conns: map[net.Conn]bool{}, gate: &gate{}}
	if p.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	go p.accept()
	t.Cleanup(func() {
		_ = p.listener.Close()
		p.cut()
		for _, g := range p.closed {
			g.Unlock()
		}
	})
	u.Host = p.listener.Addr().String()
	return db.at(t, u.String()), p
}

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
		p.join(client, server)
	}
}

// join forwards in both directions, unless connections are to end at once.
func (p *proxy) join(a, b net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dead {
		_, _ = a.Close(), b.Close()
		return
	}
	p.conns[a], p.conns[b] = true, true
	go forward(a, b, p.gate)
	go forward(b, a, p.gate)
}

func forward(from, to net.Conn, through *gate) {
	defer shut(from)
	defer shut(to)
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		through.RLock()
		_, werr := to.Write(buf[:n])
		through.RUnlock()
		if err != nil || werr != nil {
			return
		}
	}
}

// cut ends all connections, and new ones as soon as they are made.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dead = true
	for c := range p.conns {
		_ = c.Close()
	}
	clear(p.conns)
}

// mend undoes cut.
func (p *proxy) mend() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dead = false
}

// stall lets nothing through any more, in either direction, and tells nobody.
func (p *proxy) stall() { p.gate.Lock() }

// flow undoes stall. What was held up arrives.
func (p *proxy) flow() { p.gate.Unlock() }

// strand stalls the connections that there are, for good, and lets new ones
// work: another machine has taken over the address of one that died.
func (p *proxy) strand() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gate.Lock()
	p.closed, p.gate = append(p.closed, p.gate), &gate{}
}
