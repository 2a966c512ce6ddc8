//go:build cgo

package pkcs11

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/zonemint/zonemint/signer"
)

// Modules holds the owners of the PKCS#11 libraries of a process, one for each.
// A process has one Modules and opens all its backends through it. The zero value
// is ready for use, by several goroutines at a time.
type Modules struct {
	mu     sync.Mutex
	byPath map[string]*module // paths stay for good, since a denied PIN is remembered
}

// module is one library: its owner while it is in use, and what outlives that.
type module struct {
	path string
	turn chan struct{} // held while it is opened, used anew or closed

	owner    *owner // nil while it is not in use
	backends int

	mu     sync.Mutex
	denied map[tokenID]error
}

// Open connects to the token that opts name. A token that has refused a PIN once
// is not tried again by this process, whoever asks. Errors are [signer.Error]s. With
// Options.MayBeAway an HSM that does not answer is no error: the backend is down
// and connects by itself.
//
// If the module hangs, Open returns when ctx ends, and what it has begun is
// undone once the module answers.
func (m *Modules) Open(ctx context.Context, opts Options) (*Backend, error) {
	b, err := m.open(ctx, opts)
	switch {
	case err == nil:
		return b, nil
	case errors.Is(err, context.Canceled):
		return nil, &signer.Error{Op: "connect", Code: signer.Canceled, Err: err}
	case errors.Is(err, context.DeadlineExceeded):
		return nil, &signer.Error{Op: "connect", Code: signer.Unavailable, Err: fmt.Errorf("the PKCS#11 module does not answer: %w", err)}
	default:
		return nil, &signer.Error{Op: "connect", Code: codeOf(err), Err: err}
	}
}

func (m *Modules) open(ctx context.Context, opts Options) (*Backend, error) {
	opts, err := opts.complete()
	if err != nil {
		return nil, err
	}
	path, err := filepath.EvalSymlinks(opts.Module)
	if err != nil {
		return nil, failf(signer.Misconfigured, "the PKCS#11 module: %w", err)
	}
	opts.MaxSessions = min(opts.MaxSessions, mostSessions(path))
	pin, err := opts.fetchPIN(ctx)
	if err != nil {
		return nil, err
	}
	mod := m.at(path)
	if err := mod.lock(ctx); err != nil {
		return nil, err
	}
	type outcome struct {
		b   *Backend
		err error
	}
	done := make(chan outcome, 1)
	go func() {
		b, err := mod.open(opts, pin)
		mod.unlock()
		done <- outcome{b, err}
	}()
	select {
	case o := <-done:
		return o.b, o.err
	case <-ctx.Done():
		go func() { // ends when the module answers
			if o := <-done; o.err == nil {
				_ = o.b.Close()
			}
		}()
		return nil, ctx.Err()
	}
}

// mostSessions returns how many sessions a module bears. p11-kit-client sends all
// calls over one connection, whose far side takes one at a time. If that ends,
// version 0.24 wakes one of the calls that wait for an answer, and the others
// never return. So it gets one call at a time, which is no slower.
func mostSessions(path string) int {
	if strings.HasPrefix(filepath.Base(path), "p11-kit-client") {
		return 2
	}
	return math.MaxInt
}

// Stats returns what is going on at every module in use, ordered by path.
func (m *Modules) Stats() []Stats {
	m.mu.Lock()
	all := slices.Collect(maps.Values(m.byPath))
	m.mu.Unlock()
	var stats []Stats
	for _, mod := range all {
		if o := mod.current(); o != nil {
			stats = append(stats, o.stats())
		}
	}
	slices.SortFunc(stats, func(a, b Stats) int { return strings.Compare(a.Module, b.Module) })
	return stats
}

func (m *Modules) at(path string) *module {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.byPath == nil {
		m.byPath = map[string]*module{}
	}
	if m.byPath[path] == nil {
		m.byPath[path] = &module{path: path, turn: make(chan struct{}, 1), denied: map[tokenID]error{}}
	}
	return m.byPath[path]
}

func (mod *module) lock(ctx context.Context) error {
	select {
	case mod.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (mod *module) unlock() { <-mod.turn }

func (mod *module) current() *owner {
	mod.mu.Lock()
	defer mod.mu.Unlock()
	return mod.owner
}

func (mod *module) set(o *owner) {
	mod.mu.Lock()
	defer mod.mu.Unlock()
	mod.owner = o
}

// open is called by whoever has the turn.
func (mod *module) open(opts Options, pin string) (*Backend, error) {
	o := mod.owner
	if o == nil {
		o = newOwner(mod, opts)
		mod.set(o)
	}
	t, err := o.attach(opts, pin)
	if err == nil {
		var algorithms []signer.Algorithm
		if algorithms, err = offer(opts, t); err == nil {
			mod.backends++
			return newBackend(mod, t, opts, algorithms), nil
		}
	}
	if mod.backends == 0 {
		mod.set(nil)
		err = errors.Join(err, o.close())
	}
	return nil, err
}

// offer refuses what is asked of a token that lacks it. Of a token that has not
// been there yet all is offered that it may turn out to have.
func offer(opts Options, t *token) ([]signer.Algorithm, error) {
	has, known := t.algorithms()
	if !known {
		has = candidates()
	}
	if len(has) == 0 {
		return nil, failf(signer.Misconfigured, "the PKCS#11 token %s makes neither RSA nor ECDSA keys to sign with", opts.token())
	}
	if len(opts.Algorithms) == 0 {
		return has, nil
	}
	for _, alg := range opts.Algorithms {
		if !slices.Contains(has, alg) {
			return nil, failf(signer.Misconfigured, "the PKCS#11 token %s has no %s keys, only: %s", opts.token(), alg, fmt.Sprint(has))
		}
	}
	return slices.Clone(opts.Algorithms), nil
}

// leave is how a backend closes: the last one ends the owner.
func (mod *module) leave() error {
	mod.turn <- struct{}{}
	defer mod.unlock()
	if mod.backends--; mod.backends > 0 {
		return nil
	}
	o := mod.owner
	mod.set(nil)
	return o.close()
}

// deny remembers that a token refused its PIN.
func (mod *module) deny(id tokenID, err error) {
	mod.mu.Lock()
	defer mod.mu.Unlock()
	mod.denied[id] = err
}

// denial returns why a token is left alone, nil if it is not.
func (mod *module) denial(id tokenID) error {
	mod.mu.Lock()
	defer mod.mu.Unlock()
	return mod.denied[id]
}

// samePIN takes the same time for all PINs of a length.
func samePIN(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }
