package awskmsdouble

import (
	"sync"
	"time"
)

// Fault is something that goes wrong with a request.
type Fault struct {
	Op     string        // which operation; empty for any
	Times  int           // how often; 0 for once, negative for always
	Delay  time.Duration // before anything else happens
	Cut    bool          // the connection ends before anything has happened
	Lost   bool          // what was asked for happens, and the connection ends instead of the answer
	Status int           // of an answer that is not the service's, with Body
	Body   string
	Error  *Exception
	Mangle func(answer map[string]any) // changes an answer before it is sent
}

// Delays is how long it takes until everybody can see what was done. They hold for
// keys that are made from then on.
type Delays struct {
	Keys     time.Duration // a new key is not found, by whatever operation
	Describe time.Duration // a new key is not found by DescribeKey, longer than it is missing from lists
	Sign     time.Duration // a new key is not found by Sign, longer than by others
	Tags     time.Duration // a new key has no tags
	Creating time.Duration // a new key is in the state Creating
}

// Inject adds a fault. The first that fits a request is the one that happens to it.
func (s *Server) Inject(f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.Times == 0 {
		f.Times = 1
	}
	s.faults = append(s.faults, &f)
}

// Heal takes away all faults, limits, delays and missing permissions.
func (s *Server) Heal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults, s.delays, s.quota = nil, Delays{}, 0
	clear(s.limits)
	clear(s.denied)
}

func (s *Server) take(op string) Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.faults {
		if f.Op != "" && f.Op != op || f.Times == 0 {
			continue
		}
		if f.Times > 0 {
			f.Times--
		}
		return *f
	}
	return Fault{}
}

// SetDelays sets how long new keys are invisible.
func (s *Server) SetDelays(d Delays) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.delays = d
}

// SetKeyQuota bounds how many keys there can be.
func (s *Server) SetKeyQuota(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.quota = n
}

// TrackUsesFrom says since when the service counts the uses of keys.
func (s *Server) TrackUsesFrom(at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tracking = at
}

// Deny takes permissions from the caller, such as "kms:Sign".
func (s *Server) Deny(actions ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, action := range actions {
		s.denied[action] = true
	}
}

// Stall holds every request that arrives until resume is called.
func (s *Server) Stall() (resume func()) {
	gate := make(chan struct{})
	s.mu.Lock()
	s.stalled = gate
	s.mu.Unlock()
	return sync.OnceFunc(func() {
		s.mu.Lock()
		s.stalled = nil
		s.mu.Unlock()
		close(gate)
	})
}

// bucket is the request quota of an operation: as many a second, and as many at once
// after a second of rest.
type bucket struct {
	perSecond, tokens float64
	at                time.Time
}

// Limit sets a request quota. What is over it is throttled.
func (s *Server) Limit(op string, perSecond float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limits[op] = &bucket{perSecond, perSecond, s.opts.Now()}
}

func (s *Server) throttle(op string) *Exception {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.limits[op]
	if !ok {
		return nil
	}
	now := s.opts.Now()
	b.tokens = min(b.perSecond, b.tokens+b.perSecond*now.Sub(b.at).Seconds())
	b.at = now
	if b.tokens < 1 {
		return refuse("ThrottlingException", "You have exceeded the rate at which you may call KMS. Reduce the frequency of your calls.")
	}
	b.tokens--
	return nil
}
