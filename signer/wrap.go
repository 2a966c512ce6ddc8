package signer

import "context"

// wrapper stands in front of a backend.
type wrapper interface{ Unwrap() Backend }

// as returns the outermost of b and what it stands in front of that is a T.
func as[T any](b Backend) (T, bool) {
	for {
		if t, ok := b.(T); ok {
			return t, true
		}
		w, ok := b.(wrapper)
		if !ok {
			var none T
			return none, false
		}
		b = w.Unwrap()
	}
}

// bare returns what is behind everything that stands in front of b.
func bare(b Backend) Backend {
	for {
		w, ok := b.(wrapper)
		if !ok {
			return b
		}
		b = w.Unwrap()
	}
}

// Unwrap returns the backend behind the guard.
func (g *Guard) Unwrap() Backend { return g.Backend }

// Adopt implements [Adopter] for a backend that does.
func (g *Guard) Adopt(ctx context.Context, spec Spec, name string) (ref Ref, err error) {
	a, ok := g.Backend.(Adopter)
	if !ok {
		return nil, &Error{Op: "adopt", Code: Unsupported}
	}
	err = g.watch(ctx, "adopt", func() (err error) { ref, err = a.Adopt(ctx, spec, name); return err })
	return ref, err
}
