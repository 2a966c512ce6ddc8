package gcpkmsdouble

import (
	"crypto/tls"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/kms/apiv1/kmspb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
)

// Options shape a [Server].
type Options struct {
	// KeyRings are there from the start, by their full names; [KeyRing] if there are
	// none. Their locations are the ones that the service has, besides global.
	KeyRings []string
	// TLS has the server speak TLS, with a certificate that CA vouches for, and
	// insist on a credential: that of Credentials. Without it the server is in
	// plain text and refuses whoever sends a credential.
	TLS bool
	// Generation is how long a version is pending, besides the time that it
	// takes to make its key.
	Generation time.Duration
	// Visibility is how long a new key is seen by nobody, though its name is taken. The service
	// documents that there is no such time.
	Visibility time.Duration
	// MaxPage is the largest page of a listing, whatever is asked for; 1000.
	MaxPage int
	// BareDenials leaves out the details of what a permission was missing for.
	BareDenials bool
	// Now is the clock; time.Now.
	Now func() time.Time
}

// KeyRing is the key ring that a server has if it is told of no other.
const KeyRing = "projects/zonemint-test/locations/europe-west4/keyRings/mesh"

// Server is Cloud KMS. It is safe for concurrent use.
type Server struct {
	kmspb.UnimplementedKeyManagementServiceServer

	opts     Options
	grpc     *grpc.Server
	conns    *tracked
	tls      *identity // nil in plain text
	stop     chan struct{}
	makers   sync.WaitGroup
	serving  sync.WaitGroup
	stopOnce sync.Once

	mu           sync.Mutex
	rings        map[string]map[string]*key // by ring, then by ID
	locations    []string
	calls        map[string]int
	faults       []*Fault
	denied       map[string]bool
	issued       map[string]bool // access tokens
	limits       map[string]*bucket
	generations  int // to fail
	attestations int
}

// Start runs a server until the test is over.
func Start(tb testing.TB, opts Options) *Server {
	tb.Helper()
	s, err := New(opts)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(s.Close)
	return s
}

// New runs a server on a free port of loopback until Close.
func New(opts Options) (*Server, error) {
	if len(opts.KeyRings) == 0 {
		opts.KeyRings = []string{KeyRing}
	}
	if opts.MaxPage == 0 {
		opts.MaxPage = 1000
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	s := &Server{
		opts: opts, stop: make(chan struct{}), rings: map[string]map[string]*key{}, locations: []string{"global"},
		calls: map[string]int{}, denied: map[string]bool{}, issued: map[string]bool{}, limits: map[string]*bucket{},
	}
	for _, ring := range opts.KeyRings {
		name, ok := parse(ringPattern, ring)
		if !ok {
			return nil, fmt.Errorf("%q is not the name of a key ring", ring)
		}
		s.rings[ring] = map[string]*key{}
		s.locations = append(s.locations, name["location"])
	}
	return s, s.listen()
}

func (s *Server) listen() error {
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it returns at once
	if err != nil {
		return err
	}
	s.conns = &tracked{Listener: l, open: map[string]net.Conn{}}
	options := []grpc.ServerOption{
		grpc.UnaryInterceptor(s.intercept),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second}),
	}
	if s.opts.TLS {
		if s.tls, err = newIdentity(); err != nil {
			return err
		}
		options = append(options, grpc.Creds(credentials.NewTLS(&tls.Config{
			MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{s.tls.certificate},
		})))
	}
	s.grpc = grpc.NewServer(options...)
	kmspb.RegisterKeyManagementServiceServer(s.grpc, s)
	s.serving.Go(func() { _ = s.grpc.Serve(s.conns) }) // it ends with Stop
	return nil
}

// Close ends the server. Calls under way are cut.
func (s *Server) Close() {
	s.stopOnce.Do(func() {
		close(s.stop)
		s.conns.cut("")
		s.grpc.Stop()
		s.serving.Wait()
		s.makers.Wait()
	})
}

// Addr returns where the server listens, as HOST:PORT.
func (s *Server) Addr() string { return s.conns.Addr().String() }

// Calls returns how many requests for an operation have arrived, such as
// "AsymmetricSign", whatever became of them; for "" how many of all.
func (s *Server) Calls(op string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if op != "" {
		return s.calls[op]
	}
	total := 0
	for _, n := range s.calls {
		total += n
	}
	return total
}

// Deny takes permissions away, such as "cloudkms.cryptoKeys.create".
func (s *Server) Deny(permissions ...string) { s.permit(false, permissions) }

// Allow gives permissions back.
func (s *Server) Allow(permissions ...string) { s.permit(true, permissions) }

func (s *Server) permit(may bool, permissions []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range permissions {
		s.denied[p] = !may
	}
}

// Limit bounds an operation to so many a second; 0 is as many as there are.
func (s *Server) Limit(op string, perSecond float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if perSecond == 0 {
		delete(s.limits, op)
		return
	}
	s.limits[op] = &bucket{rate: perSecond, left: max(1, perSecond), as: s.opts.Now()}
}

// FailGenerations has the next n versions end in GENERATION_FAILED.
func (s *Server) FailGenerations(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.generations = n
}

// CutConnections closes every connection that clients have.
func (s *Server) CutConnections() { s.conns.cut("") }

// Key is a key as the server knows it, whether or not clients see it yet.
type Key struct {
	Name     string
	ID       string
	Labels   map[string]string
	Created  time.Time
	Versions []Version
}

// Version is a version of a key.
type Version struct {
	Name  string
	State kmspb.CryptoKeyVersion_CryptoKeyVersionState
}

// Keys returns all keys of all rings, by their names.
func (s *Server) Keys() []Key {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Key
	for _, ring := range s.rings {
		for _, k := range ring {
			shown := Key{Name: k.name, ID: k.id, Labels: k.labels, Created: k.created}
			for _, v := range k.versions {
				shown.Versions = append(shown.Versions, Version{v.name, v.state(s.opts.Now())})
			}
			all = append(all, shown)
		}
	}
	slices.SortFunc(all, func(a, b Key) int { return a.Created.Compare(b.Created) })
	return all
}

// SwapKey has a version sign with another private key, of which its public key says
// nothing. It waits until the version has one.
func (s *Server) SwapKey(version string) error {
	s.mu.Lock()
	v, err := s.version(version)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	<-v.made
	other, err := generate(v.algorithm)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	v.signer = other
	return nil
}

// Plant puts a key into a ring, as somebody else would who made it long ago, and
// returns the name of its version.
func (s *Server) Plant(ring, id string, want *kmspb.CryptoKey) (version string, _ error) {
	k, err := s.newKey(&kmspb.CreateCryptoKeyRequest{Parent: ring, CryptoKeyId: id, CryptoKey: want})
	if err != nil {
		return "", err
	}
	s.mu.Lock()
	k.created = k.created.Add(-s.opts.Visibility)
	v := s.addVersion(k)
	v.ready = k.created
	s.rings[ring][id] = k
	s.mu.Unlock()
	<-v.made
	return v.name, nil
}
