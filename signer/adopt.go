package signer

import (
	"context"
	"errors"
)

// Adopter is a [Backend] that can take over keys which zonemint did not make.
type Adopter interface {
	// Adopt returns a reference to the key that the backend knows by name, for
	// spec, whose label then is not on the key. What a name looks like is the
	// backend's own. There must be one such key alone, it must fit
	// spec's algorithm, and must not be one of zonemint's with another label.
	// Nothing is changed in the backend, so adopting again gives the same
	// reference. A name that cannot be one is Misconfigured.
	Adopt(ctx context.Context, spec Spec, name string) (Ref, error)
}

// Adopt returns a reference to a key that b has already. The caller opens it and
// probes it before anybody relies on it.
func Adopt(ctx context.Context, b Backend, spec Spec, name string) (Ref, error) {
	const op = "adopt"
	if err := spec.check(op, b); err != nil {
		return nil, err
	}
	if !CanAdopt(b) {
		return nil, &Error{Op: op, Code: Unsupported, Err: errors.New("this backend takes over no keys, it only makes them")}
	}
	if err := ctx.Err(); err != nil {
		return nil, coded(ctx, op, b, err)
	}
	a, _ := as[Adopter](b)
	ref, err := a.Adopt(ctx, spec, name)
	if err != nil {
		return nil, coded(ctx, op, b, err)
	}
	return ref, nil
}

// CanAdopt says whether b takes over keys.
func CanAdopt(b Backend) bool {
	_, ok := bare(b).(Adopter)
	return ok
}
