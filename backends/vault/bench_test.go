package vault_test

import (
	"fmt"
	"testing"

	"github.com/zonemint/zonemint/signer"
)

// BenchmarkSign makes signatures one by one from several goroutines, and in
// batches, on a real server.
func BenchmarkSign(b *testing.B) {
	s := startDev(b)
	backend := open(b, rooted(b, s, ""))
	for _, alg := range []signer.Algorithm{signer.RS256, signer.ES256} {
		_, sp, ref := newKey(b, backend, alg)
		h, err := backend.Open(b.Context(), sp, ref)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(alg.String()+"/single", func(b *testing.B) {
			b.SetParallelism(4)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := h.Sign(b.Context(), alg, hashed(alg, "message")); err != nil {
						b.Error(err)
					}
				}
			})
		})
		for _, size := range []int{10, 64, 256} {
			ins := make([][]byte, size)
			for i := range ins {
				ins[i] = hashed(alg, fmt.Sprint(i))
			}
			b.Run(fmt.Sprintf("%s/batch of %d", alg, size), func(b *testing.B) {
				for range b.N {
					if _, errs := h.(batcher).SignBatch(b.Context(), alg, ins); errs[0] != nil {
						b.Fatal(errs[0])
					}
				}
				b.ReportMetric(float64(b.N*size)/b.Elapsed().Seconds(), "signatures/s")
			})
		}
	}
}
