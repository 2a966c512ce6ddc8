package signer

import (
	"context"
	"time"
)

// patienceKey and probeKey are for values of contexts.
type (
	patienceKey struct{}
	probeKey    struct{}
)

// WithPatience returns a context for a signature whose backend is to answer within d
// of being asked. A signature that waits for its turn first ([Budget]) has d after that.
// A backend inside this process is not hurried.
func WithPatience(ctx context.Context, d time.Duration) context.Context {
	return context.WithValue(ctx, patienceKey{}, d)
}

// impatient returns the context for the call itself.
func impatient(ctx context.Context) (context.Context, context.CancelFunc) {
	if d, ok := ctx.Value(patienceKey{}).(time.Duration); ok {
		return context.WithTimeout(ctx, d)
	}
	return ctx, func() {}
}

// probing says whether ctx is that of a probe.
func probing(ctx context.Context) bool { return ctx.Value(probeKey{}) != nil }
