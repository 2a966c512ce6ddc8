package gcpkmsdouble

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// Fault says how requests go wrong. With Apply the request has its effect and its
// answer is lost; without, it has none.
type Fault struct {
	Op    string // such as "CreateCryptoKey"; "" for all
	Times int    // how many requests it hits; 0 for all until it is healed

	Delay  time.Duration       // wait this long first
	Until  <-chan struct{}     // then wait until this is closed
	Err    error               // what is answered; nil for the ordinary answer
	Cut    bool                // the connection is closed instead of an answer
	Apply  bool                // the request has its effect before Err or Cut
	Asked  func(proto.Message) // changes the request, as if on the way
	Answer func(proto.Message) // changes the answer, as if on the way

	used int
}

// Inject has requests go wrong, until heal is called. The latest fault that fits a
// request is the one that it meets.
func (s *Server) Inject(f Fault) (heal func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fault := &f
	s.faults = append(s.faults, fault)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		fault.Times, fault.used = 1, 1
	}
}

// Stall has all requests hang until resume is called.
func (s *Server) Stall() (resume func()) {
	until := make(chan struct{})
	heal := s.Inject(Fault{Until: until})
	return func() { heal(); close(until) }
}

// fault returns what a request meets; an empty one if nothing.
func (s *Server) fault(op string) Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := len(s.faults) - 1; i >= 0; i-- {
		f := s.faults[i]
		if (f.Op == "" || f.Op == op) && (f.Times == 0 || f.used < f.Times) {
			f.used++
			return *f
		}
	}
	return Fault{}
}

// wait is how long the fault takes. It ends early with the request and the server.
func (s *Server) wait(ctx context.Context, f Fault) error {
	if f.Delay > 0 {
		timer := time.NewTimer(f.Delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		case <-s.stop:
			return status.Error(codes.Unavailable, "the server is shutting down")
		}
	}
	if f.Until == nil {
		return nil
	}
	select {
	case <-f.Until:
		return nil
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	case <-s.stop:
		return status.Error(codes.Unavailable, "the server is shutting down")
	}
}

// cutOff closes the connection that a request came by.
func (s *Server) cutOff(ctx context.Context) error {
	if p, ok := peer.FromContext(ctx); ok {
		s.conns.cut(p.Addr.String())
	}
	return status.Error(codes.Unavailable, "nobody sees this")
}

// bucket lets through so many a second.
type bucket struct {
	rate, left float64
	as         time.Time
}

func (b *bucket) take(now time.Time) bool {
	b.left = min(max(1, b.rate), b.left+now.Sub(b.as).Seconds()*b.rate)
	b.as = now
	if b.left < 1 {
		return false
	}
	b.left--
	return true
}
