package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"buf.build/go/protovalidate"
	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/zonemint/zonemint/service/caller"
	"github.com/zonemint/zonemint/service/keyring"
	"github.com/zonemint/zonemint/service/ledger"
	"github.com/zonemint/zonemint/service/profile"
	"github.com/zonemint/zonemint/signer"
	"github.com/zonemint/zonemint/store"
	"github.com/zonemint/zonemint/token"
)

// invalid is a fault of the request that no rule in the schema can express. Its
// text is meant for the caller.
type invalid struct{ field, reason string }

func (e *invalid) Error() string { return e.field + ": " + e.reason }

// faulty is everything that is wrong with a wish for a token.
type faulty []profile.Fault

func (e faulty) Error() string {
	parts := make([]string, len(e))
	for i, f := range e {
		parts[i] = f.Field + ": " + f.Reason
	}
	return strings.Join(parts, "; ")
}

// countError says that another number of tokens matches than the caller expects.
// Its text is meant for the caller.
type countError struct{ matched, expected int64 }

func (e *countError) Error() string {
	return fmt.Sprintf("%d tokens match, not %d as expected; nothing was revoked", e.matched, e.expected)
}

func (e *countError) Unwrap() error { return store.ErrUnexpectedCount }

// answer is how a class of errors looks from outside. Without a text of its own
// the error's text is shown, which only classes made for the caller have.
type answer struct {
	is   error
	code connect.Code
	text string
}

// answers is the one mapping from errors to what callers see. The first match
// counts. What it does not list is an internal error.
func answers() []answer {
	return []answer{
		// First, because whatever was cancelled fails in its own way after that.
		{context.Canceled, connect.CodeCanceled, "the request was cancelled"},

		{caller.ErrUnauthenticated, connect.CodeUnauthenticated, ""},
		{caller.ErrForbidden, connect.CodePermissionDenied, ""},
		{keyring.ErrNoKeyset, connect.CodeNotFound, ""},
		{keyring.ErrNoActiveKey, connect.CodeFailedPrecondition, ""},

		{errKumaNotJSON, connect.CodeInvalidArgument, ""},
		{errKumaContentType, connect.CodeInvalidArgument, ""},

		{store.ErrCallerRefused, connect.CodeUnauthenticated, "the API token was revoked or has expired"},
		{ledger.ErrCallerRefused, connect.CodeUnauthenticated, "the API token was revoked or has expired"},
		{ledger.ErrKeyRefused, connect.CodeUnavailable, "the signing key was replaced, or tokens of this moment were revoked; try again"},
		{errSearches, connect.CodeResourceExhausted, ""},
		{errLasting, connect.CodeResourceExhausted, ""},
		{ledger.ErrBusy, connect.CodeResourceExhausted, "too many requests are waiting; try again later"},
		{ledger.ErrClosed, connect.CodeUnavailable, "this replica is shutting down; try again"},
		{errEnding, connect.CodeUnavailable, "this replica is shutting down; try again"},
		{errNoLease, connect.CodeUnavailable, "this replica has lost touch with the database; try again"},
		{errClockOffset, connect.CodeUnavailable, ""},
		{errClockJumped, connect.CodeUnavailable, ""},
		{errClockUnknown, connect.CodeUnavailable, ""},

		{store.ErrUnexpectedCount, connect.CodeFailedPrecondition, ""},
		{store.ErrFull, connect.CodeResourceExhausted, "the database has no space left; nothing was issued or changed"},
		{store.ErrUnknownOutcome, connect.CodeUnavailable, "the connection to the database was lost; try again"},
		{store.ErrUnavailable, connect.CodeUnavailable, "the database does not answer; try again later"},
		{store.ErrTampered, connect.CodeInternal, "a database row does not match its MAC; the server's log says which"},
		{store.ErrExists, connect.CodeAlreadyExists, "it exists already"},
		{store.ErrNotFound, connect.CodeNotFound, "there is no such thing"},
		{store.ErrConflict, connect.CodeAborted, "it was changed by somebody else meanwhile; try again"},
		{store.ErrRejected, connect.CodeInvalidArgument, "the database refused a value of the request"},

		{token.ErrRevocationsUnavailable, connect.CodeUnavailable, "it is not known whether the token was revoked; try again later"},

		{context.DeadlineExceeded, connect.CodeDeadlineExceeded, "the deadline has passed"},
	}
}

// backendAnswer is the same for the kinds of failure that backends have.
func backendAnswer(c signer.Code) answer {
	switch c {
	case signer.Unavailable, signer.Closed:
		return answer{code: connect.CodeUnavailable, text: "the signing backend does not answer; try again later"}
	case signer.Throttled:
		return answer{code: connect.CodeResourceExhausted, text: "the signing backend is overloaded; try again later"}
	case signer.Canceled:
		return answer{code: connect.CodeCanceled, text: "the request was cancelled"}
	case signer.Unsupported:
		return answer{code: connect.CodeFailedPrecondition, text: "the signing backend does not support this algorithm"}
	case signer.Denied, signer.NotFound, signer.Misconfigured:
		return answer{code: connect.CodeFailedPrecondition, text: "the signing backend refused; the server's log says why"}
	case signer.Corrupt:
		return answer{code: connect.CodeInternal, text: "the signing backend returned a wrong signature; nothing was issued"}
	default:
		return answer{code: connect.CodeInternal, text: "the signing backend failed; the server's log says why"}
	}
}

// explain says how an error looks from outside.
func explain(err error) (connect.Code, string) {
	if e, ok := errors.AsType[*invalid](err); ok {
		return connect.CodeInvalidArgument, e.Error()
	}
	if e, ok := errors.AsType[*missing](err); ok {
		return connect.CodeNotFound, e.Error()
	}
	if e, ok := errors.AsType[*backendDownError](err); ok {
		return connect.CodeUnavailable, e.Error()
	}
	if e, ok := errors.AsType[*held](err); ok {
		return connect.CodeFailedPrecondition, e.Error()
	}
	if e, ok := errors.AsType[faulty](err); ok {
		return connect.CodeInvalidArgument, e.Error()
	}
	if e, ok := errors.AsType[*protovalidate.ValidationError](err); ok {
		return connect.CodeInvalidArgument, violations(e)
	}
	if e, ok := errors.AsType[*signer.Error](err); ok {
		a := backendAnswer(e.Code)
		return a.code, a.text
	}
	for _, a := range answers() {
		if errors.Is(err, a.is) {
			if a.text == "" {
				return a.code, err.Error()
			}
			return a.code, a.text
		}
	}
	return connect.CodeInternal, "internal error; the server's log has the cause beside the request ID"
}

// violations says what is wrong with a request, field by field.
func violations(e *protovalidate.ValidationError) string {
	texts := make([]string, 0, len(e.Violations))
	for _, v := range e.Violations {
		text := v.Proto.GetMessage()
		if path := protovalidate.FieldPathString(v.Proto.GetField()); path != "" {
			text = path + ": " + text
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, "; ")
}

// edge turns an error into what may leave the process. The cause goes to the
// log, beside the request's ID.
func (s *Service) edge(ctx context.Context, method, request string, who caller.Caller, err error) *connect.Error {
	code, _ := explain(err)
	s.logFault(ctx, method, request, who, code, err)
	return outside(request, err)
}

// outside is what may leave the process of an error.
func outside(request string, err error) *connect.Error {
	code, text := explain(err)
	out := connect.NewError(code, errors.New(text))
	out.Meta().Set(requestIDHeader, request)
	if after := retryAfter(err); after > 0 {
		out.Meta().Set(retryAfterHeader, delaySeconds(after))
		if detail, err := connect.NewErrorDetail(&errdetails.RetryInfo{RetryDelay: durationpb.New(after)}); err == nil {
			out.AddDetail(detail)
		}
	}
	return out
}

// retryAfterHeader is for those who speak HTTP (RFC 9110 section 10.2.3); gRPC has
// google.rpc.RetryInfo.
const retryAfterHeader = "Retry-After"

// retryAfter returns when a request that was refused because of others is worth
// repeating; 0 for other failures.
func retryAfter(err error) time.Duration {
	if signer.CodeOf(err) != signer.Throttled && !errors.Is(err, ledger.ErrBusy) && !errors.Is(err, errSearches) && !errors.Is(err, errLasting) {
		return 0
	}
	return signer.RetryAfter(err)
}

func delaySeconds(d time.Duration) string {
	return strconv.Itoa(int((d + time.Second - 1) / time.Second))
}

func (s *Service) logFault(ctx context.Context, method, request string, who caller.Caller, code connect.Code, err error) {
	level := slog.LevelInfo
	_, refused := errors.AsType[*held](err)                     // with what to do about it: no fault
	refused = refused || signer.CodeOf(err) == signer.Throttled // of which there may be thousands; the metrics count them
	switch code {
	case connect.CodeInternal, connect.CodeUnavailable, connect.CodeResourceExhausted, connect.CodeFailedPrecondition:
		if !refused {
			level = slog.LevelError
		}
	default: // the caller's doing
	}
	s.log.Log(ctx, level, "request failed", slog.String("method", method), slog.String("request_id", request),
		slog.String("caller", who.Name), slog.String("code", code.String()), slog.Any("error", err))
}
