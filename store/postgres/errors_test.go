package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/zonemint/zonemint/store"
)

var sentinels = []error{
	store.ErrNotFound, store.ErrExists, store.ErrConflict, store.ErrUnavailable, store.ErrUnknownOutcome, store.ErrFull,
	store.ErrRejected, store.ErrTampered, store.ErrWrongInstanceKey,
}

func kinds(err error) (is []error) {
	for _, s := range sentinels {
		if errors.Is(err, s) {
			is = append(is, s)
		}
	}
	return is
}

// notSentError is an error from before anything was sent.
type notSentError struct{ error }

func (notSentError) SafeToRetry() bool { return true }

func TestInterpret(t *testing.T) {
	code := func(c string) error { return fmt.Errorf("statement: %w", &pgconn.PgError{Code: c}) }
	for _, c := range []struct {
		err      error
		want     error // of a statement
		atCommit error // of a statement that commits
	}{
		{err: nil},
		{err: code("23505"), want: store.ErrExists, atCommit: store.ErrExists},
		{err: code("22021"), want: store.ErrRejected, atCommit: store.ErrRejected},
		{err: code("23514"), want: store.ErrRejected, atCommit: store.ErrRejected},
		{err: code("54000"), want: store.ErrRejected, atCommit: store.ErrRejected},
		{err: code("40001"), want: store.ErrConflict, atCommit: store.ErrConflict},
		{err: code("40P01"), want: store.ErrConflict, atCommit: store.ErrConflict},
		{err: code("53100"), want: store.ErrFull, atCommit: store.ErrFull},
		{err: code("53300"), want: store.ErrUnavailable, atCommit: store.ErrUnavailable},
		{err: code("57P01"), want: store.ErrUnavailable, atCommit: store.ErrUnavailable},
		{err: code("57014"), want: store.ErrUnavailable, atCommit: store.ErrUnavailable},
		{err: code("55P03"), want: store.ErrUnavailable, atCommit: store.ErrUnavailable},
		{err: code("25006"), want: store.ErrUnavailable, atCommit: store.ErrUnavailable},
		{err: code("42501")}, // a fault of ours or of the setup, not one that callers can tell
		{err: pgx.ErrNoRows, want: store.ErrNotFound, atCommit: store.ErrUnknownOutcome},
		{err: io.ErrUnexpectedEOF, want: store.ErrUnavailable, atCommit: store.ErrUnknownOutcome},
		{err: context.DeadlineExceeded, want: store.ErrUnavailable, atCommit: store.ErrUnknownOutcome},
		{err: notSentError{context.Canceled}, want: store.ErrUnavailable, atCommit: store.ErrUnavailable},
		{err: notSentError{io.EOF}, want: store.ErrUnavailable, atCommit: store.ErrUnavailable},
		{err: pgx.ErrTxCommitRollback, want: store.ErrUnavailable, atCommit: store.ErrUnavailable},
	} {
		wantKind(t, c.err, interpret(c.err), c.want)
		wantKind(t, c.err, afterSend(c.err), c.atCommit)
	}
}

// wantKind checks which of the store's errors a driver's error has become.
func wantKind(t *testing.T, driver, got, want error) {
	t.Helper()
	var wanted []error
	if want != nil {
		wanted = []error{want}
	}
	if is := kinds(got); !slices.Equal(is, wanted) || (got == nil) != (driver == nil) {
		t.Errorf("%v has become %v, want %v", driver, is, wanted)
	}
	if !errors.Is(got, store.ErrNotFound) && !errors.Is(got, driver) {
		t.Errorf("%v has lost its cause, %v", got, driver)
	}
}
