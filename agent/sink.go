package agent

import (
	"context"
	"errors"
)

// Sink is where a token is kept for those who use it. An agent calls it from one
// goroutine.
type Sink interface {
	// Read returns the token that is there, or "" if there is none.
	Read(ctx context.Context) (string, error)

	// Write puts a token there. Whoever reads at the same time gets the old
	// token or the new one, whole. After an error the old one is still there, or the
	// new one is already; writing again is safe.
	Write(ctx context.Context, t Token) error

	// Remove leaves no token there. That there is none is no error.
	Remove(ctx context.Context) error
}

// ErrForeign is about a place where something is kept that is not the agent's.
var ErrForeign = errors.New("something else is kept there")
