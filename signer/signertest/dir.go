package signertest

import (
	"context"
	"crypto"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/zonemint/zonemint/signer"
)

// DirOptions shape a [Dir]. The zero value is a store that answers at once.
// Processes that share a directory are given the same.
type DirOptions struct {
	// VisibleAfter is how old a key must be before Find and List show it, as
	// in a service that is eventually consistent. Open needs no such wait.
	VisibleAfter time.Duration

	// Delay is how long Create takes on top of its work. The key comes to
	// exist halfway, so that a process can be killed before that and between
	// that and the reply. A context that ends in the second half leaves a key
	// that the caller knows nothing of.
	Delay time.Duration
}

// visibleMargin is for clocks that are set, or read twice, meanwhile.
const visibleMargin = 50 * time.Millisecond

// Dir is a backend whose keys outlive its process: a directory with one file
// for each key, in the clear. It is for tests that kill processes and then look
// for orphans and duplicates. So it forgives what [Fake] does not: a label that
// is created twice has two keys.
//
// Any number of processes may use one directory at once, in a Dir each. A
// process that dies leaves whole keys only. A reference is the name of a file;
// [Dir.Stall] hangs all processes; a key that is destroyed, or replaced by
// renaming another file over it, is so at once for handles too, because every
// call reads it anew.
type Dir struct {
	path   string
	opts   DirOptions
	closed atomic.Bool
}

var _ signer.Backend = (*Dir)(nil)

// OpenDir returns a connection to the keys in the directory path, which it
// makes if it does not exist.
func OpenDir(path string, opts DirOptions) (*Dir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("signertest: %w", err)
	}
	return &Dir{path: path, opts: opts}, nil
}

// Keys returns all keys that exist, visible to Find and List or not and under
// whatever label, oldest first. It is the test's own view, which no delay, no
// stall and no Close affects.
func (d *Dir) Keys() ([]signer.Labelled, error) {
	keys, err := d.readAll()
	if err != nil {
		return nil, err
	}
	all := make([]signer.Labelled, len(keys))
	for i, k := range keys {
		all[i] = k.labelled()
	}
	return all, nil
}

// Stall makes every call of every process hang, before it has an effect, until
// resume is called or its context ends. A process that dies in between leaves
// the directory stalled.
func (d *Dir) Stall() (resume func() error, err error) {
	name := filepath.Join(d.path, stallFile)
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		return nil, fmt.Errorf("signertest: %w", err)
	}
	return func() error { return os.Remove(name) }, nil
}

// Traits implements [signer.Backend].
func (d *Dir) Traits() signer.Traits {
	t := signer.Traits{Algorithms: []signer.Algorithm{signer.ES256, signer.RS256}, Remote: true}
	if d.opts.VisibleAfter > 0 {
		t.ConsistencyWindow = d.opts.VisibleAfter + visibleMargin
	}
	return t
}

// Code implements [signer.Backend].
func (d *Dir) Code(err error) signer.Code { return codeOf(err) }

// Close implements [signer.Backend].
func (d *Dir) Close() error {
	d.closed.Store(true)
	return nil
}

// Create implements [signer.Backend].
func (d *Dir) Create(ctx context.Context, spec signer.Spec) (signer.Ref, error) {
	if err := d.enter(ctx); err != nil {
		return nil, err
	}
	private, err := generate(spec.Algorithm)
	if err != nil {
		return nil, err
	}
	if err := sleep(ctx, d.opts.Delay/2); err != nil {
		return nil, err
	}
	ref, err := d.write(spec, private)
	if err != nil {
		return nil, err
	}
	// The key exists. Whoever dies or leaves here has made an orphan.
	if err := sleep(ctx, d.opts.Delay-d.opts.Delay/2); err != nil {
		return nil, err
	}
	return ref, nil
}

// Find implements [signer.Backend].
func (d *Dir) Find(ctx context.Context, spec signer.Spec) ([]signer.Ref, error) {
	if err := d.enter(ctx); err != nil {
		return nil, err
	}
	keys, err := d.visible()
	if err != nil {
		return nil, err
	}
	var refs []signer.Ref
	for _, k := range keys {
		if k.Label == spec.Label {
			refs = append(refs, signer.Ref(k.name))
		}
	}
	return refs, nil
}

// List implements [signer.Backend]. Other calls may be made meanwhile.
func (d *Dir) List(ctx context.Context, each func(signer.Labelled) error) error {
	if err := d.enter(ctx); err != nil {
		return err
	}
	keys, err := d.visible()
	if err != nil {
		return err
	}
	for _, k := range keys {
		if !signer.IsLabel(k.Label) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := each(k.labelled()); err != nil {
			return err
		}
	}
	return nil
}

// Open implements [signer.Backend].
func (d *Dir) Open(ctx context.Context, spec signer.Spec, ref signer.Ref) (signer.Handle, error) {
	h := &dirHandle{d, spec, slices.Clone(ref)}
	if _, err := h.key(ctx); err != nil {
		return nil, err
	}
	return h, nil
}

// Destroy implements [signer.Backend].
func (d *Dir) Destroy(ctx context.Context, spec signer.Spec, ref signer.Ref) error {
	h := dirHandle{d, spec, ref}
	if _, err := h.key(ctx); err != nil {
		return err
	}
	return d.remove(ref)
}

// enter is where every call begins.
func (d *Dir) enter(ctx context.Context) error {
	for {
		if d.closed.Load() {
			return failf(signer.Closed, "the connection is closed")
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := os.Stat(filepath.Join(d.path, stallFile)); err != nil {
			return nil //nolint:nilerr // nobody stalls; what else is wrong the call itself meets
		}
		if err := sleep(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
}

// visible returns the keys that Find and List may show.
func (d *Dir) visible() ([]dirKey, error) {
	keys, err := d.readAll()
	return slices.DeleteFunc(keys, func(k dirKey) bool { return time.Since(k.Created) < d.opts.VisibleAfter }), err
}

// sleep waits for d, which may be none, unless ctx ends or has ended.
func sleep(ctx context.Context, d time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return Fault{}.wait(ctx, d)
}

type dirHandle struct {
	dir  *Dir
	spec signer.Spec
	ref  signer.Ref
}

// key reads the private key, if it is the one of the handle's spec.
func (h *dirHandle) key(ctx context.Context) (crypto.Signer, error) {
	if err := h.dir.enter(ctx); err != nil {
		return nil, err
	}
	k, err := h.dir.read(string(h.ref))
	if err != nil {
		return nil, err
	}
	if k.Label != h.spec.Label || k.Keyset != h.spec.Keyset || k.Serial != h.spec.Serial || k.Algorithm != h.spec.Algorithm.String() {
		return nil, failf(signer.Corrupt, "key %q is not the one of %s/%d", h.ref, h.spec.Keyset, h.spec.Serial)
	}
	return k.private()
}

// Public implements [signer.Handle].
func (h *dirHandle) Public(ctx context.Context) (crypto.PublicKey, error) {
	key, err := h.key(ctx)
	if err != nil {
		return nil, err
	}
	return key.Public(), nil
}

// Sign implements [signer.Handle].
func (h *dirHandle) Sign(ctx context.Context, alg signer.Algorithm, in []byte) ([]byte, error) {
	key, err := h.key(ctx)
	if err != nil {
		return nil, err
	}
	return key.Sign(rand.Reader, in, alg.Opts())
}
