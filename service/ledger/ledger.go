// Package ledger writes ledger rows by group commit: rows of requests that run
// at the same time share one transaction, so that the cost of making a token
// durable is divided by the load.
package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/zonemint/zonemint/store"
)

// What can become of a row besides being recorded, beside the store's errors.
var (
	// ErrBusy: too many rows are waiting. Nothing was recorded.
	ErrBusy = errors.New("too many tokens are waiting to be recorded")
	// ErrClosed: the writer is shutting down. Nothing was recorded.
	ErrClosed = errors.New("the ledger is closed")
	// ErrKeyRefused: the signing key may not sign any more. Nothing was recorded.
	ErrKeyRefused = errors.New("the signing key may not sign")
	// ErrCallerRefused: the API token was revoked or has expired. Nothing was
	// recorded.
	ErrCallerRefused = errors.New("the API token was revoked or has expired")
)

// Store is where rows go; [store.DB] is one.
type Store interface {
	Record(ctx context.Context, at store.Link, rows []store.Issuance) (store.Link, store.Refused, error)
}

// Options are the bounds of a [Writer]. Zero fields mean the defaults.
type Options struct {
	MaxRows int           // in a transaction; 4096
	MaxWait int           // rows that may wait; 65536
	Timeout time.Duration // for a transaction; 5s
	Linger  time.Duration // how long to wait for company under load; none
	// OnCommit is told of every transaction, if it is not nil. It must be quick.
	OnCommit func(rows int, took time.Duration, err error)
}

// Writer records rows. It is safe for concurrent use. Run must be running.
type Writer struct {
	store Store
	opts  Options
	queue chan *Ticket

	mu      sync.RWMutex // held for writing to close the queue
	closed  bool
	waiting atomic.Int64 // tickets
	rows    atomic.Int64 // their rows
}

// New returns a writer onto s. It does nothing until Run is called.
func New(s Store, opts Options) *Writer {
	if opts.MaxRows == 0 {
		opts.MaxRows = 4096
	}
	if opts.MaxWait == 0 {
		opts.MaxWait = 65536
	}
	if opts.Timeout == 0 {
		opts.Timeout = 5 * time.Second
	}
	return &Writer{store: s, opts: opts, queue: make(chan *Ticket, opts.MaxWait)}
}

// Ticket stands for rows on their way into the ledger.
type Ticket struct {
	rows []store.Issuance
	errs []error // nil, or one for each row
	left int     // rows without an outcome; only Run touches it
	done chan struct{}
}

// Submit hands rows to the writer and returns at once. The rows must not be
// changed afterwards.
func (w *Writer) Submit(rows []store.Issuance) (*Ticket, error) {
	w.mu.RLock()
	defer w.mu.RUnlock()
	if w.closed {
		return nil, ErrClosed
	}
	t := &Ticket{rows: rows, left: len(rows), done: make(chan struct{})}
	if len(rows) == 0 {
		close(t.done)
		return t, nil
	}
	if w.rows.Add(int64(len(rows))) > int64(w.opts.MaxWait) {
		w.rows.Add(-int64(len(rows)))
		return nil, ErrBusy
	}
	// The queue has room: it holds a ticket for every row that may wait.
	w.waiting.Add(1)
	w.queue <- t
	return t, nil
}

// Waiting returns how many tickets wait for a transaction.
func (w *Writer) Waiting() int64 { return w.waiting.Load() }

// Wait waits for the outcome of a ticket's rows. The slice is nil if all were
// recorded and has an entry for each row otherwise. If ctx ends first the rows
// may still be recorded, which is harmless: a row without a token binds nobody.
func (t *Ticket) Wait(ctx context.Context) ([]error, error) {
	select {
	case <-t.done:
		return t.errs, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Run records what is submitted, until ctx ends. Then it refuses new rows,
// records those that were accepted, and returns.
func (w *Writer) Run(ctx context.Context) error {
	chain, err := store.NewChain()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, w.close)
	defer stop()
	busy := false
	for t := range w.queue {
		batch := w.gather(t, busy)
		rows := refs(batch)
		w.waiting.Add(-int64(len(batch)))
		w.rows.Add(-int64(len(rows)))
		// The last ticket may have brought more rows than a transaction takes.
		for part := range slices.Chunk(rows, w.opts.MaxRows) {
			// Others wait for this commit as well: the end of one caller's
			// context, or of Run's, must not abort it.
			chain = w.commit(context.WithoutCancel(ctx), chain, part)
		}
		busy = len(batch) > 1
	}
	return nil
}

// close lets Run end once it has emptied the queue.
func (w *Writer) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.closed {
		w.closed = true
		close(w.queue)
	}
}

// gather takes what has queued up behind first, and under load waits a little
// for more.
func (w *Writer) gather(first *Ticket, busy bool) []*Ticket {
	batch, rows := []*Ticket{first}, len(first.rows)
	var linger <-chan time.Time
	if busy && w.opts.Linger > 0 {
		linger = time.After(w.opts.Linger)
	}
	for rows < w.opts.MaxRows {
		select {
		case t, ok := <-w.queue:
			if !ok {
				return batch
			}
			batch, rows = append(batch, t), rows+len(t.rows)
			continue
		default:
		}
		if linger == nil {
			return batch
		}
		select {
		case t, ok := <-w.queue:
			if !ok {
				return batch
			}
			batch, rows = append(batch, t), rows+len(t.rows)
		case <-linger:
			linger = nil
		}
	}
	return batch
}

// ref is one row of a ticket.
type ref struct {
	t *Ticket
	i int
}

func (r ref) row() *store.Issuance { return &r.t.rows[r.i] }

func refs(batch []*Ticket) []ref {
	var all []ref
	for _, t := range batch {
		for i := range t.rows {
			all = append(all, ref{t, i})
		}
	}
	return all
}

// settle says what became of a row, and tells the ticket's owner after the last.
func (r ref) settle(err error) {
	if err != nil {
		if r.t.errs == nil {
			r.t.errs = make([]error, len(r.t.rows))
		}
		r.t.errs[r.i] = err
	}
	if r.t.left--; r.t.left == 0 {
		close(r.t.done)
	}
}

func settle(rows []ref, err error) {
	for _, r := range rows {
		r.settle(err)
	}
}

// commit records rows and settles every one of them. Rows that must not be
// recorded are taken out and the rest is tried again, so that a bad row fails
// alone.
func (w *Writer) commit(ctx context.Context, chain store.Link, rows []ref) store.Link {
	for len(rows) > 0 {
		next, refused, err := w.record(ctx, chain, rows)
		switch {
		case err == nil && refused.Empty():
			settle(rows, nil)
			return next
		case err == nil:
			rows = settleRefused(rows, refused)
		case badRow(err) && len(rows) > 1:
			half := len(rows) / 2
			chain = w.commit(ctx, chain, rows[:half])
			rows = rows[half:]
		default:
			settle(rows, err)
			if nothingWritten(err) {
				return chain
			}
			return w.restart(chain)
		}
	}
	return chain
}

func (w *Writer) record(ctx context.Context, chain store.Link, rows []ref) (store.Link, store.Refused, error) {
	ctx, cancel := context.WithTimeout(ctx, w.opts.Timeout)
	defer cancel()
	issuances := make([]store.Issuance, len(rows))
	for i, r := range rows {
		issuances[i] = *r.row()
	}
	start := time.Now()
	next, refused, err := w.store.Record(ctx, chain, issuances)
	if w.opts.OnCommit != nil {
		w.opts.OnCommit(len(rows), time.Since(start), err)
	}
	return next, refused, err
}

// nothingWritten says whether a failed transaction is known to have left the
// chain where it was. Of a batch that exists already it is not: perhaps it is
// the very one that was to be written.
func nothingWritten(err error) bool {
	return !errors.Is(err, store.ErrUnknownOutcome) &&
		(errors.Is(err, store.ErrUnavailable) || errors.Is(err, store.ErrRejected) || errors.Is(err, store.ErrFull))
}

// restart begins a new chain: nobody knows whether the old one has one more link.
func (w *Writer) restart(old store.Link) store.Link {
	chain, err := store.NewChain()
	if err != nil {
		// No randomness: carry on. If the lost batch was written after all,
		// the next one is refused as a duplicate, and fails clearly.
		return old
	}
	return chain
}

func badRow(err error) bool {
	return errors.Is(err, store.ErrRejected) || errors.Is(err, store.ErrExists)
}

// settleRefused fails the rows whose key or caller was refused and returns the
// others. A refusal that names none of them fails them all, so that commit ends.
func settleRefused(rows []ref, refused store.Refused) []ref {
	n := len(rows)
	rows = slices.DeleteFunc(rows, func(r ref) bool {
		switch row := r.row(); {
		case slices.Contains(refused.Keys, row.KeyID):
			r.settle(fmt.Errorf("serial %d: %w", row.Serial, ErrKeyRefused))
		case row.CallerToken != uuid.Nil && slices.Contains(refused.Callers, row.CallerToken):
			r.settle(ErrCallerRefused)
		default:
			return false
		}
		return true
	})
	if len(rows) == n {
		settle(rows, ErrKeyRefused)
		return nil
	}
	return rows
}
