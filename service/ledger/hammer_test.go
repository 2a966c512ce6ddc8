package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/zonemint/zonemint/service/ledger"
	"github.com/zonemint/zonemint/store"
)

// TestHammer lets callers come and go while the writer meets every fault, and
// checks that what a caller was told is what happened.
func TestHammer(t *testing.T) {
	f := newFakeStore(t)
	f.maxRows, f.bad, f.callers = 50, "bad", []uuid.UUID{{8}}
	w := ledger.New(f, ledger.Options{MaxRows: 50, MaxWait: 500, Linger: 100 * time.Microsecond})
	stop := running(t, w)
	var wg sync.WaitGroup
	var told atomic.Int64
	for g := range 64 {
		wg.Go(func() {
			for i := range 60 {
				if g == 0 && i%5 == 0 {
					f.inject(fault{err: store.ErrUnknownOutcome, apply: i%2 == 0})
				}
				told.Add(int64(hammer(t, f, w, g, i)))
			}
		})
	}
	wg.Wait()
	stop()
	if told.Load() == 0 || int(told.Load()) > len(f.rows) {
		t.Errorf("callers were told of %d rows, %d are recorded", told.Load(), len(f.rows))
	}
	if w.Waiting() != 0 {
		t.Errorf("%d tickets wait", w.Waiting())
	}
}

// hammer submits a ticket and returns how many of its rows were confirmed.
func hammer(t *testing.T, f *fakeStore, w *ledger.Writer, g, i int) (confirmed int) {
	list := rows(1 + (g+i)%7)
	if g%9 == 1 {
		list[0].Subject = "bad"
	}
	if g%9 == 2 {
		list[0].CallerToken = uuid.UUID{8}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if (g+i)%11 == 0 {
		cancel()
	}
	ticket, err := w.Submit(list)
	if err != nil {
		return 0 // busy
	}
	errs, err := ticket.Wait(ctx)
	if err != nil {
		return 0
	}
	for n := range list {
		switch {
		case errs == nil || errs[n] == nil:
			confirmed++
			if !f.recorded(list[n].JTI) {
				t.Errorf("row %d was confirmed and is not recorded", n)
			}
		case !errors.Is(errs[n], store.ErrUnknownOutcome) && f.recorded(list[n].JTI):
			t.Errorf("row %d is recorded and failed with %v", n, errs[n])
		}
	}
	return confirmed
}

func BenchmarkSubmitAndWait(b *testing.B) {
	for _, callers := range []int{1, 16, 256} {
		b.Run(fmt.Sprint("callers=", callers), func(b *testing.B) {
			w := ledger.New(instant{}, ledger.Options{})
			ctx, cancel := context.WithCancel(b.Context())
			done := make(chan error, 1)
			go func() { done <- w.Run(ctx) }()
			b.SetParallelism(callers)
			b.ReportAllocs()
			b.RunParallel(func(p *testing.PB) {
				list := rows(1)
				for p.Next() {
					ticket, err := w.Submit(list)
					if err != nil {
						b.Error(err)
						return
					}
					if _, err := ticket.Wait(ctx); err != nil {
						b.Error(err)
						return
					}
				}
			})
			cancel()
			<-done // it ends because it was cancelled
		})
	}
}

// instant records nothing, at once: what remains is the writer's own cost.
type instant struct{}

func (instant) Record(_ context.Context, at store.Link, _ []store.Issuance) (store.Link, store.Refused, error) {
	at.Batch++
	return at, store.Refused{}, nil
}
