package storetest

import (
	"fmt"
	"testing"
)

// BenchmarkRecord measures how fast one writer fills the ledger, by the size of
// its batches.
func BenchmarkRecord(b *testing.B, h Harness) {
	w := newWorld(b, h)
	key := w.activeKey(b, "zone")
	for _, size := range []int{1, 16, 256, 1000} {
		b.Run(fmt.Sprintf("rows=%d", size), func(b *testing.B) {
			link := newChain(b)
			for b.Loop() {
				b.StopTimer()
				batch := rows(b, key, size)
				b.StartTimer()
				link = w.record(b, link, batch)
			}
			b.ReportMetric(float64(b.N*size)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}
