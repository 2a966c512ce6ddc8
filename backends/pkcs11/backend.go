//go:build cgo

package pkcs11

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zonemint/zonemint/signer"
)

// How long keys may take to be made and, after a call that made one was lost
// together with its process, to be seen.
const (
	createTimeout     = 2 * time.Minute
	consistencyWindow = time.Second
)

// Backend implements [signer.Backend] for one token. [Modules.Open] makes it.
//
// Keys are pairs of token objects that share a random CKA_ID and a CKA_LABEL,
// which is the label of their spec.
type Backend struct {
	module     *module
	token      *token
	algorithms []signer.Algorithm
	configured []signer.Algorithm
	wait       time.Duration
	timeout    time.Duration

	closed  atomic.Bool
	closing sync.Once
}

var (
	_ signer.Backend = (*Backend)(nil)
	_ signer.Adopter = (*Backend)(nil)
)

func newBackend(mod *module, t *token, opts Options, algorithms []signer.Algorithm) *Backend {
	return &Backend{module: mod, token: t, algorithms: algorithms, configured: opts.Algorithms, wait: opts.PoolWait, timeout: opts.CallTimeout}
}

// offers refuses algorithms that a token turned out to lack, which was away when
// the backend was opened.
func (b *Backend) offers(alg signer.Algorithm) error {
	has, known := b.token.algorithms()
	switch {
	case !known || slices.Contains(has, alg):
		return nil
	case slices.Contains(b.configured, alg):
		return failf(signer.Misconfigured, "the PKCS#11 token %s has no %s keys, as the configuration wants, only: %s", b.token.id, alg, fmt.Sprint(has))
	default:
		return failf(signer.Unsupported, "the PKCS#11 token %s has no %s keys, only: %s", b.token.id, alg, fmt.Sprint(has))
	}
}

// Traits implements [signer.Backend]. Objects of a token are seen at once by
// everybody who is logged in. The window is for a key that is being made when its
// process dies: the HSM may still finish it. In the same process Find waits.
func (b *Backend) Traits() signer.Traits {
	return signer.Traits{Algorithms: slices.Clone(b.algorithms), Remote: true, Custody: signer.CustodyHardware, ConsistencyWindow: consistencyWindow}
}

// Create implements [signer.Backend]. The private key is made inside the token
// and cannot be taken out of it.
func (b *Backend) Create(ctx context.Context, spec signer.Spec) (signer.Ref, error) {
	if err := b.check(); err != nil {
		return nil, err
	}
	if err := b.offers(spec.Algorithm); err != nil {
		return nil, err
	}
	slow := b.change()
	slow.limit = max(slow.limit, createTimeout)
	return with(ctx, b.token, slow, func(c connection) (signer.Ref, error) { return c.create(spec) })
}

// Find implements [signer.Backend]. It waits for keys that are being made for
// callers who have left: one of them may be the one looked for.
func (b *Backend) Find(ctx context.Context, spec signer.Spec) ([]signer.Ref, error) {
	if err := b.check(); err != nil {
		return nil, err
	}
	return with(ctx, b.token, b.change(), func(c connection) (refs []signer.Ref, err error) {
		found, err := c.search(spec.Label)
		for _, r := range found {
			refs = append(refs, r.encode())
		}
		return refs, err
	})
}

// List implements [signer.Backend].
func (b *Backend) List(ctx context.Context, each func(signer.Labelled) error) error {
	if err := b.check(); err != nil {
		return err
	}
	found, err := with(ctx, b.token, b.read(), func(c connection) ([]reference, error) { return c.search("") })
	if err != nil {
		return err
	}
	for _, r := range found {
		if !signer.IsLabel(r.label) {
			continue
		}
		if err := each(signer.Labelled{Label: r.label, Ref: r.encode()}); err != nil {
			return err
		}
	}
	return nil
}

// Open implements [signer.Backend]. A key whose id and label are not its alone is
// refused: with PKCS#11 nobody could tell which of them signs.
func (b *Backend) Open(ctx context.Context, spec signer.Spec, ref signer.Ref) (signer.Handle, error) {
	if err := b.check(); err != nil {
		return nil, err
	}
	r, err := refOf(spec, ref)
	if err != nil {
		return nil, err
	}
	if err := b.offers(spec.Algorithm); err != nil {
		return nil, err
	}
	h := &handle{backend: b, ref: r, algorithm: spec.Algorithm}
	if _, err := h.Public(ctx); err != nil {
		return nil, err
	}
	return h, nil
}

// Destroy implements [signer.Backend]. It deletes both halves, the private one first.
func (b *Backend) Destroy(ctx context.Context, spec signer.Spec, ref signer.Ref) error {
	if err := b.check(); err != nil {
		return err
	}
	r, err := refOf(spec, ref)
	if err != nil {
		return err
	}
	_, err = with(ctx, b.token, b.change(), func(c connection) (struct{}, error) { return struct{}{}, c.destroy(r) })
	return err
}

// Adopt implements [signer.Adopter]. The name is a PKCS#11 URI (RFC 7512) with the
// key's CKA_ID ("id"), its CKA_LABEL ("object") or both.
func (b *Backend) Adopt(ctx context.Context, spec signer.Spec, name string) (signer.Ref, error) {
	if err := b.check(); err != nil {
		return nil, err
	}
	if err := spec.Validate(); err != nil {
		return nil, &codedError{signer.Misconfigured, err}
	}
	if err := b.offers(spec.Algorithm); err != nil {
		return nil, err
	}
	wanted, err := parseName(name)
	if err != nil {
		return nil, err
	}
	return with(ctx, b.token, b.read(), func(c connection) (signer.Ref, error) { return c.adopt(spec, wanted) })
}

// Code implements [signer.Backend].
func (b *Backend) Code(err error) signer.Code { return codeOf(err) }

// Stats returns what is going on at the backend's module. Backends on the same
// module return the same.
func (b *Backend) Stats() Stats { return b.token.owner.stats() }

// Usage implements [signer.UsageReporter], with the sessions of the backend's token.
func (b *Backend) Usage() signer.Usage {
	t := b.token.stats()
	return signer.Usage{InUse: t.InUse, Limit: t.Sessions, Waiting: t.Waiting, GaveUp: int64(t.TimedOut)}
}

// Close implements [signer.Backend]. The last backend of a module lets go of it,
// and waits some seconds for calls that hang in it.
func (b *Backend) Close() (err error) {
	b.closed.Store(true)
	b.closing.Do(func() { err = b.module.leave() })
	return err
}

func (b *Backend) check() error {
	if b.closed.Load() {
		return errClosed
	}
	return nil
}

func (b *Backend) read() call { return call{wait: b.wait, limit: b.timeout} }

func (b *Backend) change() call {
	return call{wait: b.wait, limit: b.timeout, change: true}
}

func refOf(spec signer.Spec, ref signer.Ref) (reference, error) {
	r, err := parseRef(ref)
	if err != nil {
		return reference{}, err
	}
	return r, r.of(spec)
}
