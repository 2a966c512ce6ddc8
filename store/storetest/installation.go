package storetest

import (
	"sync"
	"testing"

	"github.com/zonemint/zonemint/store"
)

func testInstallation(t *testing.T, h Harness) {
	w := newWorld(t, h)
	_, err := store.Open(t.Context(), w.Engine, w.mac)
	noErr(t, err)

	_, err = store.Open(t.Context(), w.Engine, newMAC(t))
	wantErr(t, err, store.ErrWrongInstanceKey)

	// The failed start has not bound the database anew.
	_, err = store.Open(t.Context(), w.Engine, w.mac)
	noErr(t, err)

	for name, edit := range w.edits(t, "installation", nil) {
		if name == "singleton" || name == "generation" || name == "created_at" || name == "incarnation" {
			continue
		}
		restore := w.backup(t, "installation")
		w.exec(t, "UPDATE installation SET %s = %s", name, edit)
		_, err = store.Open(t.Context(), w.Engine, w.mac)
		wantErr(t, err, store.ErrWrongInstanceKey)
		restore()
	}
}

func testFirstStarts(t *testing.T, h Harness) {
	base, mac := h.Open(t), newMAC(t)
	engines := []store.Engine{base.Engine}
	for base.Second != nil && len(engines) < 4 {
		engines = append(engines, base.Second(t))
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			if _, err := store.Open(t.Context(), engines[i%len(engines)], mac); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	w := world{Database: base}
	if n := w.count(t, "installation"); n != 1 {
		t.Errorf("%d installations, want 1", n)
	}
}
