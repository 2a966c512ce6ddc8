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
	"github.com/zonemint/zonemint/service/keyring"
	"github.com/zonemint/zonemint/service/ledger"
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

	// LeaseTTL is how long a replica serves and signs without word from the
	// database; 30s. It renews the lease every sixth of that.
	LeaseTTL time.Duration
	// MaxAge is the longest max-age of a JWK set; 5m. The lease bounds it too.
	MaxAge time.Duration
	// Retention is how long ledger rows are kept after their token expired; 90
	// days.
	Retention time.Duration

	// Now is the replica's clock; time.Now.
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
	if c.Retention == 0 {
		c.Retention = 90 * 24 * time.Hour
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Recorder == nil {
		c.Recorder = c.Store
	}
	return c
}

// Service is one replica. Run must be running for it to issue.
type Service struct {
	cfg       Config
	store     *store.DB
	log       *slog.Logger
	replica   uuid.UUID
	clock     clock
	ring      *keyring.Ring
	ledger    *ledger.Writer
	making    sync.Map // the IDs of the keys that this process is making
	callers   *caller.Authenticator
	methods   map[string][]caller.Role
	validator protovalidate.Validator
	metrics   *Metrics
}

// New takes the replica's lease, loads the key ring and returns the replica. It
// fails if the database does not answer.
func New(ctx context.Context, cfg Config) (*Service, error) {
	cfg = cfg.withDefaults()
	validator, err := protovalidate.New(protovalidate.WithFailFast())
	if err != nil {
		return nil, fmt.Errorf("compiling the request rules: %w", err)
	}
	s := &Service{
		cfg: cfg, store: cfg.Store, log: cfg.Log, replica: uuid.New(),
		methods: caller.Methods(), validator: validator,
	}
	if s.metrics, err = newMetrics(s); err != nil {
		return nil, fmt.Errorf("setting up metrics: %w", err)
	}
	s.clock.now = cfg.Now
	s.ring = &keyring.Ring{Store: cfg.Store, Backends: cfg.Backends, Log: cfg.Log}
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
	renewed <- struct{}{} // what a replica that died left behind is finished at once
	g.Go(func() error { return s.keepLease(ctx, renewed) })
	g.Go(func() error { return s.keepAdvancing(ctx, renewed) })
	g.Go(func() error { return s.keepMaintained(ctx) })
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

// actor is the replica itself, in the audit.
func (s *Service) actor() store.Actor { return store.Actor{Name: "replica/" + s.replica.String()} }
