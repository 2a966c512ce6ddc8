package storetest

import (
	"fmt"
	"testing"
	"time"

	"github.com/zonemint/zonemint/store"
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

// BenchmarkRevokeMatching measures how long it takes to revoke all tokens of a
// keyset, by how many there are, and then how long readers take to learn of them.
func BenchmarkRevokeMatching(b *testing.B, h Harness) {
	for _, size := range []int{10_000, 1_000_000} {
		b.Run(fmt.Sprintf("tokens=%d", size), func(b *testing.B) {
			w := newWorld(b, h)
			key, link := w.activeKey(b, "zone"), newChain(b)
			for range size / 1000 {
				link = w.record(b, link, rows(b, key, 1000))
			}
			var reading time.Duration
			b.ResetTimer()
			for b.Loop() {
				_, revoked, err := w.db.RevokeMatching(b.Context(), store.LedgerFilter{KeysetID: key.KeysetID}, nil, "breach", someone)
				noErr(b, err)
				if revoked != int64(size) {
					b.Fatalf("%d were revoked", revoked)
				}
				b.StopTimer()
				start := time.Now()
				newReader(w.db, key.KeysetID).catchUp(b, 10_000)
				reading += time.Since(start)
				w.exec(b, "DELETE FROM revocations")
				b.StartTimer()
			}
			b.ReportMetric(float64(reading.Milliseconds())/float64(b.N), "read-ms/op")
		})
	}
}
