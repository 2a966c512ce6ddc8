package signer

import (
	"context"
	"errors"
	"fmt"
)

// Code says what kind of failure an error of a backend is, in terms that a
// caller can act on.
type Code int

// The kinds of failure.
const (
	// Unknown is a failure that the backend could not classify.
	Unknown Code = iota
	// Unavailable means that the backend did not answer or is down; trying
	// again later may help.
	Unavailable
	// Throttled means that the backend asked to be called less often.
	Throttled
	// Denied means that the backend refused the credential or the right.
	Denied
	// NotFound means that the backend does not know the key. It never proves
	// that the key is gone: a store that was not mounted says the same.
	NotFound
	// Misconfigured means that the request or the set-up can never work.
	Misconfigured
	// Unsupported means that the backend cannot do this at all, for example
	// sign with that algorithm.
	Unsupported
	// Corrupt means that the answer was wrong: a signature that does not
	// verify, a key that is not the one asked for. It is an incident.
	Corrupt
	// Closed means that the backend was closed before the call.
	Closed
	// Canceled means that the caller's context ended first.
	Canceled
)

var codeNames = [...]string{
	Unknown: "unknown", Unavailable: "unavailable", Throttled: "throttled", Denied: "denied",
	NotFound: "not found", Misconfigured: "misconfigured", Unsupported: "unsupported",
	Corrupt: "corrupt", Closed: "closed", Canceled: "canceled",
}

// Codes returns every code, so that tables over them can be checked to be whole.
func Codes() []Code {
	codes := make([]Code, len(codeNames))
	for i := range codes {
		codes[i] = Code(i)
	}
	return codes
}

func (c Code) String() string {
	if c < 0 || int(c) >= len(codeNames) {
		return fmt.Sprintf("code %d", int(c))
	}
	return codeNames[c]
}

// Error is what every exported operation of this package fails with. Its text
// holds the backend's own words and is meant for the log, not for the wire.
type Error struct {
	Op   string // "create", "find", "list", "open", "sign", "verify", "destroy"
	Code Code
	Err  error
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %s: %v", e.Op, e.Code, e.Err) }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// CodeOf returns the code of the first [Error] in err's chain, Unknown if
// there is none.
func CodeOf(err error) Code {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return Unknown
}

// coded wraps err as an *Error of op. How a context ends is the same for every
// backend, so it is told apart here and not in each driver; SDKs report it in
// words of their own, and callers shall find it with errors.Is all the same.
func coded(ctx context.Context, op string, b Backend, err error) error {
	if err == nil {
		return nil
	}
	if end := ctx.Err(); end != nil && !errors.Is(err, end) {
		err = fmt.Errorf("%w: %w", end, err)
	}
	code := b.Code(err)
	// What the backend did say, for example that it was closed or that the
	// answer was wrong, tells more than that the caller has left meanwhile.
	if code == Unknown || code == Unavailable {
		switch {
		case errors.Is(err, context.Canceled):
			code = Canceled
		case errors.Is(err, context.DeadlineExceeded):
			code = Unavailable
		}
	}
	return &Error{Op: op, Code: code, Err: err}
}
