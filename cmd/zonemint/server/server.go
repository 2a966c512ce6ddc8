// Package server puts a zonemint server together from its configuration and
// runs it: database, instance key, backends, service and listeners.
package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/zonemint/zonemint/backends"
	"github.com/zonemint/zonemint/backends/pkcs11"
	"github.com/zonemint/zonemint/cmd/zonemint/config"
	"github.com/zonemint/zonemint/instancekey"
	"github.com/zonemint/zonemint/service"
	"github.com/zonemint/zonemint/service/ledger"
	"github.com/zonemint/zonemint/signer"
	"github.com/zonemint/zonemint/store"
	"github.com/zonemint/zonemint/store/postgres"
	"github.com/zonemint/zonemint/store/sqlite"
)

// Engine is a database engine as the server needs it: with its migrations.
type Engine interface {
	store.Engine
	Migrate(ctx context.Context) ([]string, error)
	Pending(ctx context.Context) ([]string, error)
}

// OpenEngine connects to the configured database.
func OpenEngine(ctx context.Context, d config.Database) (Engine, error) {
	if d.SQLite != "" {
		return sqlite.Open(ctx, d.SQLite, sqlite.Options{})
	}
	url, err := d.URL()
	if err != nil {
		return nil, err
	}
	return postgres.Open(ctx, url, postgres.Options{})
}

// InstanceKey reads the configured instance key.
func InstanceKey(k config.InstanceKey) (*instancekey.Key, error) {
	if k.File != "" {
		return instancekey.ReadFile(k.File)
	}
	v, ok := os.LookupEnv(k.Env)
	if !ok {
		return nil, fmt.Errorf("instance_key.env: %s is not set", k.Env)
	}
	return instancekey.Parse([]byte(v))
}

// OpenStore opens the configured database and binds it to the instance key. The
// schema must be up to date, or is brought up to date if the configuration says
// so.
func OpenStore(ctx context.Context, c config.Config, key *instancekey.Key, log *slog.Logger) (*store.DB, error) {
	engine, err := OpenEngine(ctx, c.Database)
	if err != nil {
		return nil, err
	}
	if err := upToDate(ctx, engine, c.Database.Migrate, log); err != nil {
		return nil, errors.Join(err, engine.Close())
	}
	db, err := store.Open(ctx, engine, key.MAC())
	if err != nil {
		return nil, errors.Join(err, engine.Close())
	}
	return db, nil
}

func upToDate(ctx context.Context, engine Engine, migrate bool, log *slog.Logger) error {
	if migrate {
		applied, err := engine.Migrate(ctx)
		if len(applied) > 0 {
			log.InfoContext(ctx, "database migrated", slog.Any("applied", applied))
		}
		return err
	}
	pending, err := engine.Pending(ctx)
	if err != nil {
		return err
	}
	if len(pending) > 0 {
		return fmt.Errorf("the database lacks migrations %v: run \"zonemint migrate\", or set database.migrate: true", pending)
	}
	return nil
}

// Server is a server that has its lease and its keys and is ready to listen.
type Server struct {
	Service *service.Service
	Store   *store.DB

	cfg      config.Config
	log      *slog.Logger
	backends map[string]signer.Backend
}

// Options are what a configuration file does not say.
type Options struct {
	Version  string
	Recorder ledger.Store // instead of the ledger; the benchmark's only
}

// New opens everything a server needs and makes the configured keysets that do
// not exist yet. Close it, also after Run.
func New(ctx context.Context, c config.Config, key *instancekey.Key, log *slog.Logger, opts Options) (_ *Server, err error) {
	if _, set := os.LookupEnv("GOGC"); !set {
		debug.SetGCPercent(c.GCPercent)
	}
	s := &Server{cfg: c, log: log, backends: map[string]signer.Backend{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if s.Store, err = OpenStore(ctx, c, key, log); err != nil {
		return nil, err
	}
	if err := s.openBackends(ctx, key); err != nil {
		return nil, err
	}
	host, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("this machine's name: %w", err)
	}
	s.Service, err = service.New(ctx, service.Config{
		Store: s.Store, Backends: s.backends, DefaultBackend: c.DefaultBackend, Log: log, Name: host, Version: opts.Version,
		Issuer: c.Issuer, Kuma: service.KumaIdentity(c.Kuma),
		Legacy:   service.Legacy{ControlPlane: c.Legacy.ControlPlane, ZoneIngress: c.Legacy.ZoneIngress, AEAD: key.AEAD()},
		LeaseTTL: c.LeaseTTL, MaxAge: c.JWKSMaxAge, StaleIfError: c.JWKSStaleIfError, MaxClockOffset: c.MaxClockOffset,
		Standby: service.Standby(c.Standby), Skew: c.ClockSkew, Retention: c.Retention, Recorder: opts.Recorder,
	})
	if err != nil {
		return nil, err
	}
	return s, s.ensureKeysets(ctx)
}

func (s *Server) openBackends(ctx context.Context, key *instancekey.Key) error {
	names := map[string]bool{s.cfg.DefaultBackend: true}
	deps := backends.Deps{AEAD: key.AEAD(), Logger: s.log, PKCS11: &pkcs11.Modules{}, MayBeAway: true}
	for name := range s.cfg.Backends {
		names[name] = true
	}
	for name := range names {
		b, err := backends.Open(ctx, name, s.cfg.Backends, deps)
		if err != nil {
			return err
		}
		s.backends[name] = b
	}
	return nil
}

func (s *Server) ensureKeysets(ctx context.Context) error {
	for _, k := range s.cfg.Keysets {
		req, err := k.Proto()
		if err != nil {
			return err
		}
		if err := s.Service.EnsureKeysetLater(ctx, req); err != nil {
			return fmt.Errorf("making keyset %s: %w", k.Name, err)
		}
	}
	return nil
}

// Close releases what New opened.
func (s *Server) Close() error {
	var errs []error
	for _, b := range s.backends {
		errs = append(errs, b.Close())
	}
	if s.Store != nil {
		errs = append(errs, s.Store.Close())
	}
	return errors.Join(errs...)
}

// drainTime is how long requests under way may take after the end was asked for.
const drainTime = 10 * time.Second

// Run listens until ctx ends, then lets requests under way finish. listening is
// called once both ports are open, with the address of the public one.
func (s *Server) Run(ctx context.Context, listening func(addr string)) error {
	public, err := s.listen(ctx, s.cfg.Listen, true)
	if err != nil {
		return err
	}
	private, err := s.listen(ctx, s.cfg.PrivateListen, false)
	if err != nil {
		return errors.Join(err, public.Close())
	}
	// The service outlives the listeners: requests that are being drained
	// still need the ledger.
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g, gctx := errgroup.WithContext(running)
	g.Go(func() error { return s.Service.Run(gctx) })

	servers := []*http.Server{s.httpServer(s.Service.Handler()), s.httpServer(s.Service.PrivateHandler())}
	// Streams have no end of their own that a drain could wait for.
	servers[0].RegisterOnShutdown(s.Service.EndStreams)
	for i, l := range []net.Listener{public, private} {
		g.Go(func() error { return ignoreClosed(servers[i].Serve(l)) })
	}
	g.Go(func() error {
		select {
		case <-ctx.Done():
		case <-gctx.Done():
		}
		err := drain(running, servers)
		stop()
		return err
	})
	s.log.InfoContext(ctx, "listening", slog.String("public", public.Addr().String()),
		slog.String("private", private.Addr().String()), slog.Bool("tls", s.cfg.TLS.CertFile != ""))
	listening(public.Addr().String())
	return g.Wait()
}

func (s *Server) listen(ctx context.Context, addr string, public bool) (net.Listener, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	if !public || s.cfg.TLS.CertFile == "" {
		return l, nil
	}
	cert, err := tls.LoadX509KeyPair(s.cfg.TLS.CertFile, s.cfg.TLS.KeyFile)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("tls: %w", err), l.Close())
	}
	return tls.NewListener(l, &tls.Config{
		Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"},
	}), nil
}

// httpServer returns a server that gives slow clients up. gRPC needs HTTP/2,
// without TLS as well.
func (s *Server) httpServer(h http.Handler) *http.Server {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Server{
		Handler: h, Protocols: &protocols, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second,
		WriteTimeout: time.Minute, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
}

func drain(ctx context.Context, servers []*http.Server) error {
	ctx, cancel := context.WithTimeout(ctx, drainTime)
	defer cancel()
	var errs []error
	for _, srv := range servers {
		if err := srv.Shutdown(ctx); err != nil {
			errs = append(errs, fmt.Errorf("requests under way were cut off after %s", drainTime), srv.Close())
		}
	}
	return errors.Join(errs...)
}

func ignoreClosed(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// Logger returns the configured logger onto w.
func Logger(w io.Writer, c config.Log) *slog.Logger {
	level := slog.LevelInfo
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		level = slog.LevelDebug // log everything rather than nothing
	}
	opts := &slog.HandlerOptions{Level: level}
	if c.Format == "text" {
		return slog.New(slog.NewTextHandler(w, opts))
	}
	return slog.New(slog.NewJSONHandler(w, opts))
}
