package gcpkmsdouble

import (
	"net"
	"sync"
)

// tracked is a listener that can cut the connections it has accepted.
type tracked struct {
	net.Listener

	mu   sync.Mutex
	open map[string]net.Conn // by the address of the client
}

func (t *tracked) Accept() (net.Conn, error) {
	c, err := t.Listener.Accept()
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.open[c.RemoteAddr().String()] = c
	return &trackedConn{c, t}, nil
}

// cut closes the connection of a client, or all of them.
func (t *tracked) cut(client string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for addr, c := range t.open {
		if client == "" || client == addr {
			_ = c.Close() // it may be closed already
		}
	}
}

type trackedConn struct {
	net.Conn
	of *tracked
}

func (c *trackedConn) Close() error {
	c.of.mu.Lock()
	delete(c.of.open, c.RemoteAddr().String())
	c.of.mu.Unlock()
	return c.Conn.Close()
}
