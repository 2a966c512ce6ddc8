package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"buf.build/go/protovalidate"
	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/zonemint/zonemint/service/caller"
	"github.com/zonemint/zonemint/service/feed"
	"github.com/zonemint/zonemint/service/keyring"
	"github.com/zonemint/zonemint/service/ledger"
	"github.com/zonemint/zonemint/service/rotation"
	"github.com/zonemint/zonemint/signer"
	"github.com/zonemint/zonemint/store"
)

// DefaultKeyset is the keyset of requests that name none, and of
// /.well-known/jwks.json.
const DefaultKeyset = "zone"

// Config is what a Service is made of. Fields without a default are required.
type Config struct {
	Store          *store.DB
	Backends       map[string]signer.Backend
	DefaultBackend string // for keysets that name none; "local" if empty
	Log            *slog.Logger

	// Name and Version identify the replica to operators.
	Name, Version string
	// Issuer, if it is set, is the URL in the iss claim and in the discovery
	// document.
	Issuer string
	// Kuma is what GET / says to kumactl.
	Kuma KumaIdentity
	// Legacy turns on the old HS256 tokens; all are off.
	Legacy Legacy

	// LeaseTTL is how long a replica serves and signs without word from the
	// database; 30s. It renews the lease every sixth of that.
	LeaseTTL time.Duration
	// MaxAge is the longest max-age of a JWK set; 5m. The lease bounds it too, and
	// so does the next planned change of the set.
	MaxAge time.Duration
	// StaleIfError is how long caches may go on with a JWK set after that, while
	// they get errors when they ask again. If it is zero they may not.
	StaleIfError time.Duration
	// MaxClockOffset is by how much this replica's clock may differ from the
	// database's before it stops signing; 1m.
	MaxClockOffset time.Duration
	// Skew is by how much the clocks of verifiers may be wrong; 1m. Activations
	// and removals of keys wait for it.
	Skew time.Duration
	// Retention is how long ledger rows are kept after their token expired; 90
	// days.
	Retention time.Duration

	// SignOfLife is how often streams without news send something, and look
	// again whether their API token is good; 10s.
	SignOfLife time.Duration
	// FeedInterval is how often the database is asked for new revocations; 1s.
	// Notifications come faster where there are any.
	FeedInterval time.Duration

	// Standby is when the standby of a keyset signs.
	Standby Standby

	// Now is the replica's clock, which may be wrong and may jump; time.Now. How
	// much time has passed is measured beside it, on the monotonic clock.
	Now func() time.Time
	// Recorder is where ledger rows go; Store.
	Recorder ledger.Store
}

func (c Config) withDefaults() Config {
	if c.DefaultBackend == "" {
		c.DefaultBackend = "local"
	}
	if c.LeaseTTL == 0 {
		c.LeaseTTL = 30 * time.Second
	}
	if c.MaxAge == 0 {
		c.MaxAge = 5 * time.Minute
	}
	if c.MaxClockOffset == 0 {
		c.MaxClockOffset = time.Minute
	}
	if c.Skew == 0 {
		c.Skew = time.Minute
	}
	if c.Retention == 0 {
		c.Retention = 90 * 24 * time.Hour
	}
	if c.SignOfLife == 0 {
		c.SignOfLife = 10 * time.Second
	}
	if c.FeedInterval == 0 {
		c.FeedInterval = time.Second
	}
	c.Standby = c.Standby.withDefaults()
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Recorder == nil {
		c.Recorder = c.Store
	}
	return c
}

// longestMaxAge is what the max-age of a JWK set never exceeds.
func (c Config) longestMaxAge() time.Duration { return min(c.MaxAge, c.LeaseTTL) }

// CacheFor returns for how long after it was served a verifier, or a cache on the
// way to it, may go on using a JWK set of a replica with this configuration.
// Whatever takes a key into use, or takes trust in one away, waits for that.
func (c Config) CacheFor() time.Duration {
	c = c.withDefaults()
	return c.longestMaxAge() + c.StaleIfError
}

// Service is one replica. Run must be running for it to issue.
type Service struct {
	cfg       Config
	store     *store.DB
	log       *slog.Logger
	replica   uuid.UUID
	clock     clock
	ring      *keyring.Ring
	caching   *keyring.Caching
	ledger    *ledger.Writer
	nudged    chan struct{} // has an element when a heartbeat was asked for
	attempts  attempts
	makers    sync.WaitGroup // the goroutines that make keys
	holds     holds
	callers   *caller.Authenticator
	methods   map[string][]caller.Role
	validator protovalidate.Validator
	metrics   *Metrics
	guards    map[string]*signer.Guard // of the backends outside this process, by name
	budgets   map[string]*signer.Budget
	contacts  map[string]*contact // with those
	stands    stands
	feed      *feed.Follower
	gzips     sync.Pool     // of *gzip.Writer
	ending    chan struct{} // closed when streams are to end
	endOnce   sync.Once
}

// New takes the replica's lease, loads the key ring and returns the replica. It
// fails if the database does not answer.
func New(ctx context.Context, cfg Config) (*Service, error) {
	cfg = cfg.withDefaults()
	if err := cfg.Legacy.check(ctx, cfg.Log); err != nil {
		return nil, err
	}
	validator, err := protovalidate.New(protovalidate.WithFailFast())
	if err != nil {
		return nil, fmt.Errorf("compiling the request rules: %w", err)
	}
	s := &Service{
		cfg: cfg, store: cfg.Store, log: cfg.Log, replica: uuid.New(),
		methods: caller.Methods(), validator: validator, ending: make(chan struct{}),
		nudged: make(chan struct{}, 1),
	}
	if s.metrics, err = newMetrics(s); err != nil {
		return nil, fmt.Errorf("setting up metrics: %w", err)
	}
	s.cfg.Backends = s.guarded(cfg.Backends) //nolint:contextcheck // calls are measured whose contexts have ended
	s.clock.wall, s.clock.mono, s.clock.maxOffset = cfg.Now, time.Now, cfg.MaxClockOffset
	s.ring = &keyring.Ring{
		Store: cfg.Store, Backends: s.cfg.Backends, Log: cfg.Log,
		LoadTime: min(10*time.Second, max(time.Second, cfg.LeaseTTL/3)), // the heartbeat waits for it
		Planned: func(ks store.Keyset, keys []store.SigningKey) []time.Time {
			return rotation.Planned(ks, keys, s.rules())
		},
	}
	s.caching = keyring.NewCaching(cfg.longestMaxAge(), cfg.StaleIfError)
	s.feed = feed.New(cfg.Store, feed.Options{Interval: cfg.FeedInterval, Log: cfg.Log})
	s.ledger = ledger.New(cfg.Recorder, ledger.Options{Linger: cfg.Store.Linger(), OnCommit: s.metrics.committed})
	s.callers = &caller.Authenticator{Store: cfg.Store, Now: s.clock.estimate}
	if err := s.beat(ctx); err != nil {
		return nil, err
	}
	return s, s.ring.Refresh(ctx)
}

// Run keeps the replica alive until ctx ends: it records tokens, renews the
// lease, follows changes of the ring, finishes keys that were begun, and
// maintains the ledger. Before it returns it gives the lease back.
func (s *Service) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.ledger.Run(ctx) })
	renewed := make(chan struct{}, 1)
	g.Go(func() error { return s.keepLease(ctx, renewed) })
	g.Go(func() error { return s.keepAdvancing(ctx, renewed) })
	g.Go(func() error { return s.keepMaintained(ctx) })
	g.Go(func() error { return s.store.Watch(ctx, s.wake) })
	g.Go(func() error { return s.watchBackends(ctx) })
	g.Go(func() error { return s.keepStandby(ctx) })
	g.Go(func() error { defer s.EndStreams(); return s.feed.Run(ctx) })
	err := g.Wait()

	leave, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if lerr := s.store.Leave(leave, s.replica); lerr != nil {
		s.log.WarnContext(leave, "lease not given back, it will run out", slog.Any("error", lerr))
	}
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// CacheFor returns for how long after this replica served it a verifier may go on
// using a JWK set; see [Config.CacheFor].
func (s *Service) CacheFor() time.Duration { return s.cfg.CacheFor() }

// actor is the replica itself, in the audit.
func (s *Service) actor() store.Actor { return store.Actor{Name: "replica/" + s.replica.String()} }
