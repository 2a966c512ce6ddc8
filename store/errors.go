package store

import "errors"

// What can go wrong, for callers to tell apart with errors.Is. Engines wrap the
// driver's error with the one that fits.
var (
	// ErrNotFound: there is no such row.
	ErrNotFound = errors.New("not found")
	// ErrExists: a row with that name or value exists already.
	ErrExists = errors.New("already exists")
	// ErrConflict: the row was changed by somebody else, or is in another
	// state than the change starts from. Losing a race looks like this.
	ErrConflict = errors.New("changed meanwhile")
	// ErrUnavailable: the database did not answer. Nothing was written.
	ErrUnavailable = errors.New("database unavailable")
	// ErrUnknownOutcome: the connection was lost, or the disk failed, while a
	// transaction was being committed. It may have been written or not.
	ErrUnknownOutcome = errors.New("commit interrupted, outcome unknown")
	// ErrFull: the disk under the database is full.
	ErrFull = errors.New("no space left for the database")
	// ErrRejected: the database refused the values of a row.
	ErrRejected = errors.New("row rejected by the database")
	// ErrCallerRefused: the API token that the act was asked for with was
	// revoked or has expired. Nothing was written.
	ErrCallerRefused = errors.New("the API token was revoked or has expired")
	// ErrUnexpectedCount: another number of rows matches than was expected.
	// Nothing was written.
	ErrUnexpectedCount = errors.New("another number matches than was expected")
	// ErrTampered: a row does not match its MAC. It was written by something
	// that does not have the instance key, or damaged.
	ErrTampered = errors.New("row does not match its MAC")
	// ErrWrongInstanceKey: the database belongs to another instance key.
	ErrWrongInstanceKey = errors.New("this database was set up with another instance key")
)
