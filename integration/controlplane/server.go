package controlplane

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"time"
)

// Server serves a handler on an address that it keeps, also when it is down.
type Server struct {
	handler http.Handler
	address string

	mu      sync.Mutex
	running *http.Server
	done    chan struct{}
}

// Serve starts a server on loopback.
func Serve(handler http.Handler) (*Server, error) {
	var err error
	// No port that the system gives to whoever asks for any: somebody else might be given
	// it while this server is down.
	for range 100 {
		s := &Server{handler: handler, address: fmt.Sprintf("127.0.0.1:%d", 10_000+rand.IntN(10_000))} //nolint:gosec // it is no secret
		if err = s.Start(); err == nil {
			return s, nil
		}
	}
	return nil, err
}

// URL returns where the server is, or will be again.
func (s *Server) URL() string { return "http://" + s.address }

// Start starts the server again.
func (s *Server) Start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running != nil {
		return errors.New("it runs already")
	}
	listener, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", s.address)
	if err != nil {
		return err
	}
	s.address = listener.Addr().String()
	running, done := &http.Server{Handler: s.handler, ReadHeaderTimeout: 10 * time.Second}, make(chan struct{})
	s.running, s.done = running, done
	go func() {
		defer close(done)
		_ = running.Serve(listener) // it ends when Stop says so
	}()
	return nil
}

// Stop ends the server and all connections at once.
func (s *Server) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running == nil {
		return
	}
	_ = s.running.Close() // of connections that are of no use any more
	<-s.done
	s.running = nil
}
