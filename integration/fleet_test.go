package integration

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
)

// How long things take in a fleet. Verifiers may hold a JWK set for as long as a
// replica's lease lasts and then for a max-age, and their clocks may be wrong.
const (
	fleetLease  = 1500 * time.Millisecond
	fleetMaxAge = time.Second
	fleetSkew   = 250 * time.Millisecond
)

// fleet is three servers on one database, each behind a proxy of its own.
type fleet struct {
	in       *installation // past the proxies
	db       *sql.DB       // likewise
	members  []*member
	balancer *balancer
	machine  *machine
}

// newFleet starts a fleet. Tests take the second and the third replica away from
// the database, and ask the first one for everything but tokens.
func newFleet(t *testing.T, keysets ...keyset) *fleet {
	t.Helper()
	s := settings{keysets: keysets, leaseTTL: fleetLease, more: fmt.Sprintf(
		"jwks_max_age: %s\njwks_stale_if_error: 0s\nclock_skew: %s\n", fleetMaxAge, fleetSkew)}
	f := &fleet{in: installAdmin(t, newPostgres(t), s), machine: watchMachineIn(t)}
	for i := range 3 {
		f.members = append(f.members, f.in.startMember(t, fmt.Sprintf("replica-%d", i), s))
	}
	var err error
	if f.db, err = sql.Open(f.in.db.driver, f.in.db.dsn); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shut(f.db) })
	f.balancer = balance(t, f.members)
	return f
}

// stop ends all servers, and has zonemint look for faults in the ledger.
func (f *fleet) stop(t *testing.T) {
	t.Helper()
	for _, r := range f.members {
		r.stop(t)
	}
	f.in.verifyLedger(t)
}

// keys returns the keys of a keyset that have not been removed, by serial.
func (f *fleet) keys(ctx context.Context, keyset string) ([]*pb.SigningKey, error) {
	resp, err := f.members[0].client.keys.ListSigningKeys(ctx, &pb.ListSigningKeysRequest{Keyset: keyset})
	return resp.GetSigningKeys(), err
}

// active returns the key that signs.
func (f *fleet) active(ctx context.Context, keyset string) (*pb.SigningKey, error) {
	keys, err := f.keys(ctx, keyset)
	if err != nil {
		return nil, err
	}
	for _, k := range keys {
		if k.GetState() == "active" {
			return k, nil
		}
	}
	return nil, fmt.Errorf("no key of %s signs", keyset)
}

// mustActive returns the serial of the key that signs.
func (f *fleet) mustActive(t *testing.T, keyset string) *pb.SigningKey {
	t.Helper()
	k, err := f.active(t.Context(), keyset)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// member is a server of a fleet that can be cut off from the database.
type member struct {
	*server
	name   string
	proxy  *proxy
	client client

	mu      sync.Mutex
	outages []outage
}

// outage is when a replica may not know what the others know. It has not ended
// as long as until is zero.
type outage struct{ from, until time.Time }

func (in *installation) startMember(t *testing.T, name string, s settings) *member {
	t.Helper()
	behind, p := proxied(t, in.db)
	own := *in
	own.db, own.config = behind, filepath.Join(in.dir, name+".yaml")
	own.configure(t, own.config, filepath.Join(in.dir, "instance.key"), s)
	srv := own.start(t)
	return &member{server: srv, name: name, proxy: p, client: srv.overConnect(t, in.admin)}
}

// outages come in two kinds.
const (
	loud   = false // connections end, and cannot be made
	silent = true  // nothing arrives any more, and nobody is told
)

// cutOff takes the replica away from the database until the function that it
// returns is called.
func (r *member) cutOff(kind bool) (mend func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.outages = append(r.outages, outage{from: time.Now()})
	if kind == silent {
		r.proxy.stall()
		return r.proxy.flow
	}
	r.proxy.cut()
	return r.proxy.mend
}

// caughtUp says that the outage is over and everybody has noticed.
func (r *member) caughtUp() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.outages[len(r.outages)-1].until = time.Now()
}

// behind says whether the replica was in an outage for longer than a grace, at
// some moment between two others.
func (r *member) behind(from, to time.Time, grace time.Duration) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, o := range r.outages {
		if to.After(o.from.Add(grace)) && (o.until.IsZero() || from.Before(o.until)) {
			return true
		}
	}
	return false
}

// isReady asks for the readiness as something that watches it does.
func (r *member) isReady(ctx context.Context, patience time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.private+"/healthz/ready", nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	defer shut(resp.Body)
	_, _ = io.Copy(io.Discard, resp.Body) // so that the connection can be used again
	return resp.StatusCode == http.StatusOK
}

// balancer is a load balancer before the replicas: it asks now and then who is
// ready, and sends requests to the next one that was. It is an
// [http.RoundTripper], so that any client can be made to go through it.
type balancer struct {
	members []*member
	ready   []atomic.Bool
	next    atomic.Uint64
}

// balancerInterval is how often the balancer asks.
const balancerInterval = 250 * time.Millisecond

func balance(t *testing.T, members []*member) *balancer {
	t.Helper()
	b := &balancer{members: members, ready: make([]atomic.Bool, len(members))}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var watchers sync.WaitGroup
	for i, r := range members {
		b.ready[i].Store(r.isReady(ctx, time.Second))
		watchers.Go(func() {
			for ctx.Err() == nil {
				time.Sleep(balancerInterval)
				b.ready[i].Store(r.isReady(ctx, time.Second))
			}
		})
	}
	t.Cleanup(func() { cancel(); watchers.Wait() })
	return b
}

// pick returns the replica whose turn it is.
func (b *balancer) pick() (*member, error) {
	for range b.members {
		i := int(b.next.Add(1) % uint64(len(b.members)))
		if b.ready[i].Load() {
			return b.members[i], nil
		}
	}
	return nil, errors.New("no replica is ready")
}

// RoundTrip implements [http.RoundTripper]. A busy machine may have all replicas lose
// their short leases at once: until one is ready again, requests wait.
func (b *balancer) RoundTrip(req *http.Request) (*http.Response, error) {
	r, err := b.pick()
	for ; err != nil; r, err = b.pick() {
		if req.Context().Err() != nil {
			return nil, err
		}
		time.Sleep(20 * time.Millisecond)
	}
	sent := req.Clone(req.Context())
	sent.URL.Host = r.public
	return http.DefaultTransport.RoundTrip(sent)
}
