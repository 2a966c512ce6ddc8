package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"github.com/zonemint/zonemint/service/caller"
	"github.com/zonemint/zonemint/service/keyring"
	"github.com/zonemint/zonemint/service/ledger"
	"github.com/zonemint/zonemint/signer"
	"github.com/zonemint/zonemint/store"
	"github.com/zonemint/zonemint/token"
)

// cause is what must not get out.
const cause = "canary-51ce"

// wantedCodes is said a second time here, so that a code does not change
// unnoticed.
func wantedCodes() map[error]connect.Code {
	return map[error]connect.Code{
		caller.ErrUnauthenticated: connect.CodeUnauthenticated, caller.ErrForbidden: connect.CodePermissionDenied,
		keyring.ErrNoKeyset: connect.CodeNotFound, keyring.ErrNoActiveKey: connect.CodeFailedPrecondition,
		errKumaNotJSON: connect.CodeInvalidArgument, errKumaContentType: connect.CodeInvalidArgument,
		ledger.ErrKeyRefused:   connect.CodeUnavailable,
		store.ErrCallerRefused: connect.CodeUnauthenticated, ledger.ErrCallerRefused: connect.CodeUnauthenticated,
		ledger.ErrKeyRefused: connect.CodeUnavailable,
		errSearches:          connect.CodeResourceExhausted, errLasting: connect.CodeResourceExhausted,
		ledger.ErrBusy: connect.CodeResourceExhausted, ledger.ErrClosed: connect.CodeUnavailable, errNoLease: connect.CodeUnavailable,
		errClockOffset: connect.CodeUnavailable, errClockJumped: connect.CodeUnavailable, errClockUnknown: connect.CodeUnavailable,
		errEnding: connect.CodeUnavailable, store.ErrUnexpectedCount: connect.CodeFailedPrecondition,
		store.ErrFull: connect.CodeResourceExhausted, store.ErrUnknownOutcome: connect.CodeUnavailable,
		store.ErrUnavailable: connect.CodeUnavailable, store.ErrTampered: connect.CodeInternal, store.ErrExists: connect.CodeAlreadyExists,
		store.ErrNotFound: connect.CodeNotFound, store.ErrConflict: connect.CodeAborted, store.ErrRejected: connect.CodeInvalidArgument,
		token.ErrRevocationsUnavailable: connect.CodeUnavailable,
		context.Canceled:                connect.CodeCanceled, context.DeadlineExceeded: connect.CodeDeadlineExceeded,
	}
}

func TestEveryAnswer(t *testing.T) {
	want := wantedCodes()
	if len(want) != len(answers()) {
		t.Errorf("%d answers, %d are expected", len(answers()), len(want))
	}
	for _, a := range answers() {
		code, text := explain(fmt.Errorf("doing something: %w: %s", a.is, cause))
		if code != want[a.is] {
			t.Errorf("%v: %s, want %s", a.is, code, want[a.is])
		}
		// The classes without a text of their own are made for callers.
		if a.text != "" && (text != a.text || strings.Contains(text, cause)) {
			t.Errorf("%v: %s", a.is, text)
		}
	}
}

func TestEveryBackendAnswer(t *testing.T) {
	want := map[signer.Code]connect.Code{
		signer.Unknown: connect.CodeInternal, signer.Unavailable: connect.CodeUnavailable, signer.Throttled: connect.CodeResourceExhausted,
		signer.Denied: connect.CodeFailedPrecondition, signer.NotFound: connect.CodeFailedPrecondition,
		signer.Misconfigured: connect.CodeFailedPrecondition, signer.Unsupported: connect.CodeFailedPrecondition,
		signer.Corrupt: connect.CodeInternal, signer.Closed: connect.CodeUnavailable, signer.Canceled: connect.CodeCanceled,
	}
	for _, c := range signer.Codes() {
		err := fmt.Errorf("signing: %w", &signer.Error{Op: "sign", Code: c, Err: errors.New(cause)})
		code, text := explain(err)
		if wanted, ok := want[c]; !ok || code != wanted || text == "" || strings.Contains(text, cause) {
			t.Errorf("%s: %s %q, want %s", c, code, text, wanted)
		}
	}
}

func TestWhatNobodyKnowsIsInternal(t *testing.T) {
	for _, err := range []error{errors.New(cause), fmt.Errorf("%s: %w", cause, store.ErrWrongInstanceKey), connect.NewError(connect.CodeNotFound, errors.New(cause))} {
		if code, text := explain(err); code != connect.CodeInternal || strings.Contains(text, cause) {
			t.Errorf("%v: %s %s", err, code, text)
		}
	}
}

// The cause goes to the log, beside the ID that the caller is given.
func TestEdge(t *testing.T) {
	var log strings.Builder
	s := &Service{log: slog.New(slog.NewTextHandler(&log, nil))}
	err := s.edge(t.Context(), "/x.Y/Z", "id-1", caller.Caller{Name: "api-token/1"}, fmt.Errorf("%w: %s", store.ErrUnavailable, cause))
	if strings.Contains(err.Error(), cause) || err.Meta().Get(requestIDHeader) != "id-1" {
		t.Errorf("%v with %v", err, err.Meta())
	}
	for _, want := range []string{cause, "request_id=id-1", "caller=api-token/1", "level=ERROR", "code=unavailable"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log lacks %s: %s", want, log.String())
		}
	}
}

func TestRecovered(t *testing.T) {
	var log strings.Builder
	s := &Service{log: slog.New(slog.NewTextHandler(&log, nil))}
	err := s.recovered(t.Context(), connect.Spec{Procedure: "/x.Y/Z"}, nil, errors.New(cause))
	if connect.CodeOf(err) != connect.CodeInternal || strings.Contains(err.Error()+log.String(), cause) || !strings.Contains(log.String(), "*errors.errorString") {
		t.Errorf("%v; %s", err, log.String())
	}
}
