// Package vault is the signing backend for private keys in the Transit engine
// of HashiCorp Vault or OpenBao.
//
// Every serial is a transit key of its own, whose name is built from its label,
// and always signs with version 1 of it. Versions of one key would be fewer
// objects, but they share too much: raising min_decryption_version for one of
// them takes older ones out of the reading and stops them signing, deleting is
// for all of them or none, a type cannot change from one to the next, and a
// version that somebody rotates by hand would become a serial that nobody
// asked for. Under a name of its own a key is found with one read, is created
// at most once however often that is asked for, and what others do to other
// keys, or rotating this one, changes nothing.
//
// The package speaks HTTP itself instead of through hashicorp/vault/api: the
// protocol is five requests of JSON, and the client would have to be kept from
// reading its settings out of the environment, from sending the token wherever
// a redirect points, from reading answers of any length, and from saying
// "nothing there" both for a key and for an engine that is missing.
package vault

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zonemint/zonemint/signer"
)

// consistencyWindow covers two things: a key that is still being made for a
// caller who has left (4096 bits take seconds), and performance standbys, which
// answer reads from a copy that lags. Creating a key again is harmless with
// Transit, which answers with the key that there is.
const consistencyWindow = 2 * time.Second

// Backend implements [signer.Backend].
type Backend struct {
	client  *client
	session *session
	mount   string
	prefix  string
	log     *slog.Logger

	closed atomic.Bool
	closer sync.Once
	cancel context.CancelFunc // ends the session's goroutine
}

var _ signer.Backend = (*Backend)(nil)

// New checks opts and begins to log in, in a goroutine that ends with Close. A
// server that is down or sealed is no error: calls fail until it is there. Nor is a
// log-in that it refuses, or a credential's file that is not there yet: others put
// that right while this process runs. The context
// gives values to the goroutine and does not end it.
func New(ctx context.Context, opts Options) (*Backend, error) {
	opts = opts.complete()
	if err := opts.check(); err != nil {
		return nil, err
	}
	c, err := newClient(opts)
	if err != nil {
		return nil, err
	}
	return start(ctx, opts, c)
}

func start(ctx context.Context, opts Options, c *client) (*Backend, error) {
	login, err := opts.login(c)
	if err != nil {
		return nil, err
	}
	b := &Backend{
		client:  c,
		session: newSession(c, login, opts),
		mount:   opts.Mount,
		prefix:  opts.KeyPrefix,
		log:     opts.Logger,
	}
	ctx, b.cancel = context.WithCancel(context.WithoutCancel(ctx))
	go b.session.run(ctx)
	return b, nil
}

// Traits implements [signer.Backend].
func (b *Backend) Traits() signer.Traits {
	return signer.Traits{Algorithms: signer.Algorithms(), Remote: true, Custody: signer.CustodyService, ConsistencyWindow: consistencyWindow}
}

// Close implements [signer.Backend]. A token that the backend logged in for is
// revoked, if the server says so within a second.
func (b *Backend) Close() error {
	b.closer.Do(func() {
		b.closed.Store(true)
		b.cancel()
		<-b.session.done
		b.session.giveBack()
		b.client.http.CloseIdleConnections()
	})
	return nil
}

func (b *Backend) check(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if b.closed.Load() {
		return errClosed
	}
	return nil
}

// call makes a request with the token that is held, and once more with a fresh
// one if that was refused: whoever revoked it did not mean the next one. A
// refused request has had no effect.
func (b *Backend) call(ctx context.Context, r request, into any) error {
	if err := b.check(ctx); err != nil {
		return err
	}
	with, err := b.session.token(ctx)
	if err != nil {
		return fmt.Errorf("%s: %w", r.op, err)
	}
	r.token = with.token
	if err = b.client.do(ctx, r, into); !b.session.outlived(with, err) {
		return err
	}
	if with, err = b.session.fresh(ctx, with.generation); err != nil {
		return fmt.Errorf("%s: %w", r.op, err)
	}
	r.token = with.token
	return b.client.do(ctx, r, into)
}

// Stats is what can be counted about a backend.
type Stats struct {
	InFlight        int       // requests that wait for an answer
	Requests        uint64    // requests sent, of all kinds
	Logins          uint64    // tokens obtained, also by reading a file again
	LoginFailures   uint64    // log-ins that failed
	Renewals        uint64    // times that a token's life was prolonged
	RenewalFailures uint64    // times that it was not
	TokenExpires    time.Time // zero if there is no token or it does not expire
}

// Usage implements [signer.UsageReporter], with requests under way.
func (b *Backend) Usage() signer.Usage {
	return signer.Usage{InUse: len(b.client.slots), Limit: cap(b.client.slots)}
}

// Stats returns the counters since New.
func (b *Backend) Stats() Stats {
	s := b.session.stats()
	s.InFlight, s.Requests = len(b.client.slots), b.client.requests.Load()
	return s
}
