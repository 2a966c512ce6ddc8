package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/zonemint/zonemint/store"
)

// interpret wraps a driver's error with the store's sentinel that fits. Errors
// of PostgreSQL are told apart by the class of their SQLSTATE:
// https://www.postgresql.org/docs/current/errcodes-appendix.html
func interpret(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, pgx.ErrNoRows):
		return store.ErrNotFound
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: %w", store.ErrUnavailable, err)
	}
	pg, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return fmt.Errorf("%w: %w", store.ErrUnavailable, err)
	}
	switch {
	case pg.Code == "23505": // unique_violation
		return fmt.Errorf("%w: %w", store.ErrExists, err)
	case pg.Code == "53100": // disk_full
		return fmt.Errorf("%w: %w", store.ErrFull, err)
	case strings.HasPrefix(pg.Code, "40"): // serialization failure, deadlock
		return fmt.Errorf("%w: %w", store.ErrConflict, err)
	case strings.HasPrefix(pg.Code, "22"), strings.HasPrefix(pg.Code, "23"),
		strings.HasPrefix(pg.Code, "54"): // data, constraint, larger than an index takes
		return fmt.Errorf("%w: %w", store.ErrRejected, err)
	case strings.HasPrefix(pg.Code, "08"), strings.HasPrefix(pg.Code, "53"), strings.HasPrefix(pg.Code, "57"),
		pg.Code == "55P03", pg.Code == "25006": // connection, resources, shutdown; lock timeout; become a standby
		return fmt.Errorf("%w: %w", store.ErrUnavailable, err)
	default:
		return err
	}
}

// afterSend interprets the error of a statement that commits. Without a word
// from the server nobody knows whether it did.
func afterSend(err error) error {
	if err == nil {
		return nil
	}
	_, told := errors.AsType[*pgconn.PgError](err)
	if told || pgconn.SafeToRetry(err) || errors.Is(err, pgx.ErrTxCommitRollback) {
		return interpret(err)
	}
	return fmt.Errorf("%w: %w", store.ErrUnknownOutcome, err)
}
