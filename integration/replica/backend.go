package main

import (
	"context"
	"crypto"
	"slices"
	"sync"
	"time"

	"github.com/zonemint/zonemint/signer"
	"github.com/zonemint/zonemint/signer/signertest"
)

// backend is a [signertest.Dir] that ends the process around its calls. Points
// are named by the call, for example "before:find" and "after:find", where after
// means that the caller does not learn of it. Create has two more: at "early:create"
// the key does not exist yet, at "during:create" it does and Create is still
// running. "found" is after a Find that found something.
//
// A key is opened twice in its life. "open", "public" and "probe" are of the one
// time when it has just been made and is tried; "load" is of the key ring, which
// opens keys that sign.
type backend struct {
	*signertest.Dir
	faults *faults
	early  time.Duration // how long after the beginning of Create its key does not exist

	mu  sync.Mutex
	new map[string]bool // by label: it was looked for, and is opened next to be tried
}

// Find implements [signer.Backend].
func (b *backend) Find(ctx context.Context, spec signer.Spec) ([]signer.Ref, error) {
	b.faults.at("before:find")
	refs, err := b.Dir.Find(ctx, spec)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	b.new[spec.Label] = true
	b.mu.Unlock()
	b.faults.at("after:find")
	if len(refs) > 0 {
		b.faults.at("after:found")
	}
	return refs, nil
}

// Create implements [signer.Backend].
func (b *backend) Create(ctx context.Context, spec signer.Spec) (signer.Ref, error) {
	b.faults.at("before:create")
	ended := make(chan struct{})
	defer close(ended)
	go b.watch(spec.Label, ended)
	ref, err := b.Dir.Create(ctx, spec)
	if err == nil {
		b.faults.at("after:create")
	}
	return ref, err
}

// watch looks at a key coming into existence.
func (b *backend) watch(label string, ended <-chan struct{}) {
	if !pause(b.early, ended) {
		return
	}
	b.faults.at("early:create")
	for pause(2*time.Millisecond, ended) {
		keys, err := b.Keys()
		if err == nil && slices.ContainsFunc(keys, func(k signer.Labelled) bool { return k.Label == label }) {
			b.faults.at("during:create")
			return
		}
	}
}

func pause(d time.Duration, ended <-chan struct{}) bool {
	select {
	case <-time.After(d):
		return true
	case <-ended:
		return false
	}
}

// Open implements [signer.Backend].
func (b *backend) Open(ctx context.Context, spec signer.Spec, ref signer.Ref) (signer.Handle, error) {
	b.mu.Lock()
	fresh := b.new[spec.Label]
	delete(b.new, spec.Label)
	b.mu.Unlock()
	if !fresh {
		b.faults.at("before:load")
		h, err := b.Dir.Open(ctx, spec, ref)
		if err == nil {
			b.faults.at("after:load")
		}
		return h, err
	}
	b.faults.at("before:open")
	h, err := b.Dir.Open(ctx, spec, ref)
	if err != nil {
		return nil, err
	}
	b.faults.at("after:open")
	return probed{h, b.faults}, nil
}

// Destroy implements [signer.Backend].
func (b *backend) Destroy(ctx context.Context, spec signer.Spec, ref signer.Ref) error {
	b.faults.at("before:destroy")
	err := b.Dir.Destroy(ctx, spec, ref)
	if err == nil {
		b.faults.at("after:destroy")
	}
	return err
}

// probed is the handle of a key that is tried.
type probed struct {
	signer.Handle
	faults *faults
}

// Public implements [signer.Handle].
func (p probed) Public(ctx context.Context) (crypto.PublicKey, error) {
	key, err := p.Handle.Public(ctx)
	if err == nil {
		p.faults.at("after:public")
	}
	return key, err
}

// Sign implements [signer.Handle].
func (p probed) Sign(ctx context.Context, alg signer.Algorithm, in []byte) ([]byte, error) {
	p.faults.at("before:probe")
	sig, err := p.Handle.Sign(ctx, alg, in)
	if err == nil {
		p.faults.at("after:probe")
	}
	return sig, err
}
