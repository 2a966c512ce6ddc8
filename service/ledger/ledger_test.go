package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/zonemint/zonemint/service/ledger"
	"github.com/zonemint/zonemint/store"
)

func row(subject string) store.Issuance {
	return store.Issuance{JTI: uuid.New(), KeyID: uuid.UUID{1}, CallerToken: uuid.UUID{2}, Subject: subject}
}

func rows(n int) []store.Issuance {
	list := make([]store.Issuance, n)
	for i := range list {
		list[i] = row(fmt.Sprint("s", i))
	}
	return list
}

// running starts Run in the bubble of the test, and ends it with the test.
func running(t *testing.T, w *ledger.Writer) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	return sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func submit(t *testing.T, w *ledger.Writer, r ...store.Issuance) *ledger.Ticket {
	t.Helper()
	ticket, err := w.Submit(r)
	if err != nil {
		t.Fatal(err)
	}
	return ticket
}

// outcome waits for a ticket and returns the error of its first row.
func outcome(t *testing.T, ticket *ledger.Ticket) error {
	t.Helper()
	errs, err := ticket.Wait(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if errs == nil {
		return nil
	}
	return errs[0]
}

func TestConcurrentRowsShareACommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeStore(t)
		f.took = 10 * time.Millisecond
		w := ledger.New(f, ledger.Options{})
		defer running(t, w)()
		first := submit(t, w, row("first"))
		synctest.Wait() // it is being committed
		var later []*ledger.Ticket
		for range 50 {
			later = append(later, submit(t, w, row("later")))
		}
		if w.Waiting() != 50 {
			t.Errorf("%d tickets wait, want 50", w.Waiting())
		}
		for _, ticket := range append(later, first) {
			if err := outcome(t, ticket); err != nil {
				t.Error(err)
			}
		}
		if got := f.sizes(); !slices.Equal(got, []int{1, 50}) {
			t.Errorf("batches of %v rows, want 1 and 50", got)
		}
		if w.Waiting() != 0 || f.writers() != 1 {
			t.Errorf("%d tickets wait, %d chains", w.Waiting(), f.writers())
		}
	})
}

func TestATransactionIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeStore(t)
		f.maxRows, f.took = 10, time.Millisecond
		w := ledger.New(f, ledger.Options{MaxRows: 10})
		defer running(t, w)()
		first := submit(t, w, row("first"))
		synctest.Wait()
		// 9 and 9 do not fit together, and 25 fits into none.
		tickets := []*ledger.Ticket{
			first, submit(t, w, rows(9)...), submit(t, w, rows(9)...), submit(t, w, rows(25)...),
		}
		for _, ticket := range tickets {
			if err := outcome(t, ticket); err != nil {
				t.Error(err)
			}
		}
		if len(f.rows) != 44 {
			t.Errorf("%d rows recorded, want 44", len(f.rows))
		}
	})
}

func TestLinger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeStore(t)
		f.took = time.Millisecond
		w := ledger.New(f, ledger.Options{Linger: 5 * time.Millisecond})
		defer running(t, w)()
		alone := time.Now()
		if err := outcome(t, submit(t, w, row("alone"))); err != nil || time.Since(alone) != time.Millisecond {
			t.Fatalf("a row alone took %s: %v", time.Since(alone), err)
		}
		// Two in one transaction: that is load.
		lead := submit(t, w, row("lead"))
		synctest.Wait()
		for _, ticket := range []*ledger.Ticket{lead, submit(t, w, row("a")), submit(t, w, row("b"))} {
			_ = outcome(t, ticket)
		}
		start := time.Now()
		early := submit(t, w, row("early"))
		time.Sleep(3 * time.Millisecond)
		late := submit(t, w, row("late"))
		if err := errors.Join(outcome(t, early), outcome(t, late)); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took > 6*time.Millisecond {
			t.Errorf("took %s, want no more than the linger and a transaction", took)
		}
		if got := f.sizes(); !slices.Equal(got, []int{1, 1, 2, 2}) {
			t.Errorf("batches of %v rows", got)
		}
	})
}

func TestABadRowFailsAlone(t *testing.T) {
	for _, n := range []int{1, 2, 3, 17, 64} {
		for _, at := range []int{0, n / 2, n - 1} {
			synctest.Test(t, func(t *testing.T) {
				f := newFakeStore(t)
				f.bad = "bad"
				w := ledger.New(f, ledger.Options{})
				list := rows(n)
				list[at].Subject = "bad"
				ticket := submit(t, w, list...)
				defer running(t, w)()
				errs, err := ticket.Wait(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				for i, r := range list {
					if bad := i == at; errors.Is(errs[i], store.ErrRejected) != bad || f.recorded(r.JTI) == bad {
						t.Errorf("row %d of %d (bad is %d): %v", i, n, at, errs[i])
					}
				}
				if f.writers() > 1 {
					t.Errorf("%d chains, want one", f.writers())
				}
			})
		}
	}
}

func TestRefusedRowsFailAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeStore(t)
		f.took = time.Millisecond
		f.keys, f.callers = []uuid.UUID{{7}}, []uuid.UUID{{8}}
		w := ledger.New(f, ledger.Options{})
		good, oldKey, revoked, both := row("good"), row("old key"), row("revoked"), row("both")
		oldKey.KeyID, revoked.CallerToken = uuid.UUID{7}, uuid.UUID{8}
		both.KeyID, both.CallerToken = uuid.UUID{7}, uuid.UUID{8}
		var tickets []*ledger.Ticket
		for _, r := range []store.Issuance{good, oldKey, revoked, both} {
			tickets = append(tickets, submit(t, w, r))
		}
		defer running(t, w)()
		for i, want := range []error{nil, ledger.ErrKeyRefused, ledger.ErrCallerRefused, ledger.ErrKeyRefused} {
			if err := outcome(t, tickets[i]); !errors.Is(err, want) {
				t.Errorf("row %d: %v, want %v", i, err, want)
			}
		}
		if got := f.sizes(); !slices.Equal(got, []int{1}) || !f.recorded(good.JTI) {
			t.Errorf("batches of %v rows", got)
		}
	})
}

// vague refuses without saying what.
type vague struct{}

func (vague) Record(_ context.Context, at store.Link, _ []store.Issuance) (store.Link, store.Refused, error) {
	return at, store.Refused{Keys: []uuid.UUID{{99}}}, nil
}

func TestARefusalOfNobodyFailsAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := ledger.New(vague{}, ledger.Options{})
		defer running(t, w)()
		if err := outcome(t, submit(t, w, rows(3)...)); !errors.Is(err, ledger.ErrKeyRefused) {
			t.Error(err)
		}
	})
}

func TestTooManyRowsAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeStore(t)
		w := ledger.New(f, ledger.Options{MaxWait: 10})
		tickets := []*ledger.Ticket{submit(t, w, rows(6)...), submit(t, w, rows(4)...)}
		if _, err := w.Submit(rows(1)); !errors.Is(err, ledger.ErrBusy) {
			t.Errorf("an eleventh row: %v", err)
		}
		stop := running(t, w)
		for _, ticket := range tickets {
			_ = outcome(t, ticket)
		}
		if err := outcome(t, submit(t, w, rows(10)...)); err != nil {
			t.Errorf("with room again: %v", err)
		}
		stop()
		if len(f.rows) != 20 {
			t.Errorf("%d rows recorded, want 20", len(f.rows))
		}
	})
}

func TestNoRowsAreRecordedAtOnce(t *testing.T) {
	w := ledger.New(newFakeStore(t), ledger.Options{})
	ticket, err := w.Submit(nil)
	if err != nil {
		t.Fatal(err)
	}
	if errs, err := ticket.Wait(t.Context()); errs != nil || err != nil {
		t.Error(errs, err)
	}
}

func TestShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeStore(t)
		f.took, f.maxRows = time.Second, 2
		w := ledger.New(f, ledger.Options{MaxRows: 2})
		stop := running(t, w)
		var tickets []*ledger.Ticket
		for range 7 {
			tickets = append(tickets, submit(t, w, row("accepted")))
		}
		synctest.Wait()
		stop()
		if _, err := w.Submit(rows(1)); !errors.Is(err, ledger.ErrClosed) {
			t.Errorf("after the end: %v", err)
		}
		for i, ticket := range tickets {
			if err := outcome(t, ticket); err != nil {
				t.Errorf("accepted row %d: %v", i, err)
			}
		}
		if len(f.rows) != 7 {
			t.Errorf("%d rows recorded, want 7", len(f.rows))
		}
	})
}

func TestOnCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeStore(t)
		f.took = 3 * time.Millisecond
		var seen []string
		w := ledger.New(f, ledger.Options{OnCommit: func(rows int, took time.Duration, err error) {
			seen = append(seen, fmt.Sprint(rows, took, err))
		}})
		f.inject(fault{err: store.ErrUnavailable})
		stop := running(t, w)
		_ = outcome(t, submit(t, w, rows(2)...))
		_ = outcome(t, submit(t, w, rows(3)...))
		stop()
		if want := []string{"2 3ms database unavailable", "3 3ms <nil>"}; !slices.Equal(seen, want) {
			t.Errorf("%q, want %q", seen, want)
		}
	})
}

func TestACallerWhoLeavesAbortsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeStore(t)
		f.took = time.Second
		w := ledger.New(f, ledger.Options{})
		stop := running(t, w)
		left, stays := row("left"), row("stays")
		ticket, other := submit(t, w, left), submit(t, w, stays)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		start := time.Now()
		if _, err := ticket.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 10*time.Millisecond {
			t.Errorf("left after %s with %v", time.Since(start), err)
		}
		if err := outcome(t, other); err != nil {
			t.Error(err)
		}
		stop()
		if !f.recorded(left.JTI) || !f.recorded(stays.JTI) {
			t.Error("a row was not recorded")
		}
	})
}
