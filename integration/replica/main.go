// Command replica is a zonemint replica that dies on demand: before or after any
// commit of a rotation, and around any call of its backend, which is a directory
// of key files that outlives it. It puts the service together as "zonemint serve"
// does, on plaintext and loopback; the faults are in what it hands to the service
// and not in the product.
//
// The flag -die, or a line on standard input at any time later, names the point,
// see [engine] and [backend]. Its log and its last words go to standard output.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/zonemint/zonemint/instancekey"
	"github.com/zonemint/zonemint/service"
	"github.com/zonemint/zonemint/signer"
	"github.com/zonemint/zonemint/signer/signertest"
	"github.com/zonemint/zonemint/store"
	"github.com/zonemint/zonemint/store/postgres"
	"github.com/zonemint/zonemint/store/sqlite"
)

// backendName is what keysets call the directory of keys.
const backendName = "dir"

type options struct {
	sqlite, postgresFile string
	instanceKey          string
	keys                 string
	dir                  signertest.DirOptions
	lease, maxAge, skew  time.Duration
	die                  string
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stdout, "replica:", err)
		os.Exit(1)
	}
}

func parse(args []string) (options, error) {
	var o options
	f := flag.NewFlagSet("replica", flag.ContinueOnError)
	f.StringVar(&o.sqlite, "sqlite", "", "the database's `file`")
	f.StringVar(&o.postgresFile, "postgres-file", "", "a `file` with the database's URL")
	f.StringVar(&o.instanceKey, "instance-key", "", "the instance key's `file`")
	f.StringVar(&o.keys, "keys", "", "the backend's `directory`")
	f.DurationVar(&o.dir.VisibleAfter, "visible-after", 0, "how old keys are when the backend shows them")
	f.DurationVar(&o.dir.Delay, "create-delay", 0, "how long the backend takes to make a key")
	f.DurationVar(&o.lease, "lease", 1500*time.Millisecond, "the replica's lease")
	f.DurationVar(&o.maxAge, "max-age", 100*time.Millisecond, "how long verifiers may keep a JWK set")
	f.DurationVar(&o.skew, "skew", 20*time.Millisecond, "by how much the clocks of verifiers may be wrong")
	f.StringVar(&o.die, "die", "", "the `point` to die at, perhaps with @N for the N-th time")
	return o, f.Parse(args)
}

func run(args []string) (err error) {
	o, err := parse(args)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	f := &faults{out: os.Stdout}
	if err := f.arm(o.die); err != nil {
		return err
	}
	go f.obey(os.Stdin)
	db, err := open(ctx, o, f)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	dir, err := signertest.OpenDir(o.keys, o.dir)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewJSONHandler(os.Stdout, nil))
	s, err := service.New(ctx, service.Config{
		Store:          db,
		Backends:       map[string]signer.Backend{backendName: &backend{Dir: dir, faults: f, early: o.dir.Delay / 4, new: map[string]bool{}}},
		DefaultBackend: backendName, Log: log, Name: fmt.Sprintf("replica-%d", os.Getpid()), Version: "test",
		LeaseTTL: o.lease, MaxAge: o.maxAge, Skew: o.skew,
	})
	if err != nil {
		return err
	}
	return serve(ctx, s, log)
}

// open opens the store on an engine with faults.
func open(ctx context.Context, o options, f *faults) (*store.DB, error) {
	key, err := instancekey.ReadFile(o.instanceKey)
	if err != nil {
		return nil, err
	}
	e, err := openEngine(ctx, o)
	if err != nil {
		return nil, err
	}
	db, err := store.Open(ctx, engine{e, f}, key.MAC())
	if err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return db, nil
}

func openEngine(ctx context.Context, o options) (store.Engine, error) {
	if o.sqlite != "" {
		return sqlite.Open(ctx, o.sqlite, sqlite.Options{})
	}
	url, err := os.ReadFile(o.postgresFile)
	if err != nil {
		return nil, err
	}
	return postgres.Open(ctx, strings.TrimSpace(string(url)), postgres.Options{})
}

// serve listens until ctx ends, as the server of zonemint does.
func serve(ctx context.Context, s *service.Service, log *slog.Logger) error {
	var addresses []any
	var listeners []net.Listener
	for _, name := range []string{"public", "private"} {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		listeners, addresses = append(listeners, l), append(addresses, slog.String(name, l.Addr().String()))
	}
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g, gctx := errgroup.WithContext(running)
	g.Go(func() error { return s.Run(gctx) })
	var servers []*http.Server
	for i, h := range []http.Handler{s.Handler(), s.PrivateHandler()} {
		srv := &http.Server{Handler: h, Protocols: new(http.Protocols), ReadHeaderTimeout: 5 * time.Second}
		srv.Protocols.SetHTTP1(true)
		srv.Protocols.SetUnencryptedHTTP2(true)
		servers = append(servers, srv)
		g.Go(func() error {
			if err := srv.Serve(listeners[i]); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		})
	}
	g.Go(func() error {
		select {
		case <-ctx.Done():
		case <-gctx.Done():
		}
		defer stop()
		return errors.Join(servers[0].Shutdown(running), servers[1].Shutdown(running))
	})
	log.InfoContext(ctx, "listening", addresses...)
	return g.Wait()
}
