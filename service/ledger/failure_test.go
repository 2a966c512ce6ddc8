package ledger_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zonemint/zonemint/service/ledger"
	"github.com/zonemint/zonemint/store"
)

func TestUnknownOutcomeBeginsANewChain(t *testing.T) {
	for _, written := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			f := newFakeStore(t)
			w := ledger.New(f, ledger.Options{})
			defer running(t, w)()
			if err := outcome(t, submit(t, w, row("before"))); err != nil {
				t.Fatal(err)
			}
			f.inject(fault{err: store.ErrUnknownOutcome, apply: written})
			list := rows(4)
			errs, err := submit(t, w, list...).Wait(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for i := range list {
				if !errors.Is(errs[i], store.ErrUnknownOutcome) || f.recorded(list[i].JTI) != written {
					t.Errorf("written=%t: row %d: %v", written, i, errs[i])
				}
			}
			if err := outcome(t, submit(t, w, row("after"))); err != nil {
				t.Errorf("written=%t: the next batch: %v", written, err)
			}
			if f.writers() != 2 {
				t.Errorf("%d chains, want 2", f.writers())
			}
		})
	}
}

// An engine that lost a reply without noticing leaves the writer one link
// behind. It must not fail for ever.
func TestAStuckChainIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeStore(t)
		w := ledger.New(f, ledger.Options{})
		defer running(t, w)()
		f.inject(fault{err: store.ErrUnavailable, apply: true})
		if err := outcome(t, submit(t, w, row("lost"))); !errors.Is(err, store.ErrUnavailable) {
			t.Fatal(err)
		}
		_ = outcome(t, submit(t, w, row("duplicate link")))
		if err := outcome(t, submit(t, w, row("next"))); err != nil {
			t.Error(err)
		}
	})
}

func TestDatabaseDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeStore(t)
		w := ledger.New(f, ledger.Options{})
		defer running(t, w)()
		f.inject(fault{err: store.ErrUnavailable}, fault{err: store.ErrFull})
		if err := outcome(t, submit(t, w, row("a"))); !errors.Is(err, store.ErrUnavailable) {
			t.Error(err)
		}
		if err := outcome(t, submit(t, w, row("b"))); !errors.Is(err, store.ErrFull) {
			t.Error(err)
		}
		if err := outcome(t, submit(t, w, row("c"))); err != nil || f.writers() != 1 {
			t.Errorf("back again: %v, %d chains", err, f.writers())
		}
	})
}

func TestATransactionHasADeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeStore(t)
		f.took = time.Hour
		w := ledger.New(f, ledger.Options{Timeout: 2 * time.Second})
		defer running(t, w)()
		start := time.Now()
		if err := outcome(t, submit(t, w, row("slow"))); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if took := time.Since(start); took != 2*time.Second {
			t.Errorf("took %s", took)
		}
	})
}
