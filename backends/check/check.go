// Package check tries out a signing backend: it makes a key, finds it, signs with
// it, verifies, measures, and takes the key away again.
package check

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/zonemint/zonemint/signer"
)

// Options shape a check.
type Options struct {
	// Algorithm of the key; the backend's first if it is the zero value.
	Algorithm signer.Algorithm
	// Signatures is how many are made, one after the other; 20.
	Signatures int
	// Adopt is what a key is called that the backend has already and that is tried
	// out instead of one that is made. It is left where it is.
	Adopt string
	// Keep leaves the key where it is, for whoever wants to look at it.
	Keep bool
	// Done is told of each step as soon as it is over.
	Done func(Step)
}

// Step is one thing that was tried.
type Step struct {
	Name string        // "create", "adopt", "find", "public", "sign", "destroy" …
	Took time.Duration // of "sign" the median
	Err  error         // nil: it worked
	Hint string        // what to do about Err
}

// Run checks a backend and returns the steps that were tried. What cannot be
// tried after a step that failed is left out; a key that was made is taken away
// all the same.
func Run(ctx context.Context, b signer.Backend, opts Options) []Step {
	r := &run{b: b, opts: opts}
	if opts.Signatures == 0 {
		r.opts.Signatures = 20
	}
	algorithms := b.Traits().Algorithms
	if opts.Algorithm == (signer.Algorithm{}) && len(algorithms) > 0 {
		r.opts.Algorithm = algorithms[0]
	}
	r.spec = signer.Spec{Keyset: "backend-check", Serial: 1, Label: signer.NewLabel(), Algorithm: r.opts.Algorithm}
	r.all(ctx)
	return r.steps
}

type run struct {
	b     signer.Backend
	opts  Options
	spec  signer.Spec
	steps []Step
}

// step tries something and notes what came of it.
func (r *run) step(name string, try func() error) bool {
	began := time.Now()
	err := try()
	r.note(Step{Name: name, Took: time.Since(began), Err: err})
	return err == nil
}

func (r *run) note(s Step) {
	if s.Err != nil {
		s.Hint = hint(s.Name, s.Err)
	}
	r.steps = append(r.steps, s)
	if r.opts.Done != nil {
		r.opts.Done(s)
	}
}

func (r *run) all(ctx context.Context) {
	if r.opts.Adopt != "" {
		r.adopted(ctx)
		return
	}
	var ref signer.Ref
	if !r.step("create", func() (err error) { ref, err = signer.Create(ctx, r.b, r.spec); return err }) {
		r.lookForRemains(ctx)
		return
	}
	if !r.opts.Keep {
		defer r.destroy(ctx, ref)
	}
	if !r.b.Traits().Stateless {
		r.step("find", func() error { return r.find(ctx, ref) })
	}
	r.use(ctx, ref)
}

// adopted tries out a key that somebody else has made.
func (r *run) adopted(ctx context.Context) {
	var ref signer.Ref
	if r.step("adopt", func() (err error) { ref, err = signer.Adopt(ctx, r.b, r.spec, r.opts.Adopt); return err }) {
		r.use(ctx, ref)
	}
}

// use opens a key and signs with it.
func (r *run) use(ctx context.Context, ref signer.Ref) {
	var key *signer.Key
	if r.step("public", func() (err error) { key, err = signer.Open(ctx, r.b, r.spec, ref, nil); return err }) {
		r.sign(ctx, key)
	}
}

// lookForRemains says whether a creation that failed left a key behind.
func (r *run) lookForRemains(ctx context.Context) {
	refs, err := signer.Find(ctx, r.b, r.spec)
	if err != nil || len(refs) == 0 {
		return
	}
	for _, ref := range refs {
		r.destroy(ctx, ref)
	}
}

var errNotFound = errors.New("the key that was just made is not found by its label")

func (r *run) find(ctx context.Context, ref signer.Ref) error {
	deadline := time.Now().Add(r.b.Traits().ConsistencyWindow)
	for {
		refs, err := signer.Find(ctx, r.b, r.spec)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(refs, func(found signer.Ref) bool { return string(found) == string(ref) }) {
			return nil
		}
		if !time.Now().Before(deadline) {
			return errNotFound
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// sign signs messages that differ, and verifies every signature.
func (r *run) sign(ctx context.Context, key *signer.Key) {
	took := make([]time.Duration, 0, r.opts.Signatures)
	for range r.opts.Signatures {
		message := []byte("zonemint backend check " + rand.Text())
		began := time.Now()
		sig, err := key.SignJWS(ctx, message)
		if err != nil {
			r.note(Step{Name: "sign", Took: time.Since(began), Err: err})
			return
		}
		took = append(took, time.Since(began))
		if err := r.spec.Algorithm.Verify(key.Public(), message, sig); err != nil {
			r.note(Step{Name: "verify", Err: &signer.Error{Op: "verify", Code: signer.Corrupt, Err: err}})
			return
		}
	}
	slices.Sort(took)
	r.note(Step{Name: "sign", Took: took[len(took)/2]})
}

// destroy takes the key away, also when the caller's time is over.
func (r *run) destroy(ctx context.Context, ref signer.Ref) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 15*time.Second)
	defer cancel()
	r.step("destroy", func() error { return signer.Destroy(ctx, r.b, r.spec, ref) })
}

// hint says in plain words what a failure asks for.
func hint(step string, err error) string {
	what := map[string]string{
		"create": "make keys", "find": "look for keys", "public": "read a public key", "sign": "sign", "destroy": "delete keys",
		"adopt": "use that key",
	}[step]
	switch signer.CodeOf(err) {
	case signer.Denied:
		if permission := signer.MissingPermission(err); permission != "" {
			return fmt.Sprintf("the backend's credential lacks the permission %s, which it takes to %s", permission, what)
		}
		return "the backend's credential lacks the right to " + what
	case signer.Unavailable:
		return "the backend does not answer: see whether it runs and can be reached from here"
	case signer.Throttled:
		return "the backend is asked too much at the moment: try again, or raise its limit"
	case signer.Misconfigured, signer.Unsupported:
		return "the configuration cannot work as it is: see the error"
	case signer.NotFound:
		if step == "adopt" {
			return "the backend has no key of that name, or the credential may not see it"
		}
		return "the backend does not know the key that it has just made: is there more than one store behind that address?"
	case signer.Corrupt:
		return "the backend answered wrongly: do not use it before somebody has found out why"
	default:
		return ""
	}
}
