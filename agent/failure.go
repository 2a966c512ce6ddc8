package agent

import (
	"errors"

	"connectrpc.com/connect"

	"github.com/zonemint/zonemint/kubernetes"
)

// Kinds of failures, as metrics and logs name them.
const (
	kindDenied      = "denied"      // the server refused the credential or the right
	kindUnavailable = "unavailable" // no answer, or one that asks to come again
	kindRefused     = "refused"     // the server found the request itself at fault
	kindToken       = "token"       // what the server issued is not what was asked for
	kindSink        = "sink"        // the token could not be read or written
	kindHook        = "hook"        // it could, but After failed
)

// failure is something that failed, of a kind.
type failure struct {
	kind string
	error
}

func (f *failure) Unwrap() error { return f.error }

// issueFailure tells why Issue failed.
func issueFailure(err error) *failure {
	switch connect.CodeOf(err) {
	case connect.CodeUnauthenticated, connect.CodePermissionDenied:
		return &failure{kindDenied, err}
	case connect.CodeInvalidArgument, connect.CodeNotFound, connect.CodeFailedPrecondition, connect.CodeUnimplemented:
		return &failure{kindRefused, err}
	default:
		return &failure{kindUnavailable, err}
	}
}

// final says whether trying again at once makes no sense. An agent that runs on
// tries all the same: a credential or a policy may change.
func final(err error) bool {
	if f, ok := errors.AsType[*failure](err); ok {
		switch f.kind {
		case kindDenied, kindRefused, kindToken:
			return true
		}
	}
	return errors.Is(err, ErrForeign) || errors.Is(err, kubernetes.ErrDenied)
}
