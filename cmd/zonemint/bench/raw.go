package bench

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zonemint/zonemint/backends/local"
	"github.com/zonemint/zonemint/instancekey"
	"github.com/zonemint/zonemint/signer"
)

// rawKeys makes the keys whose raw rate everything is compared with.
func (s *session) rawKeys(ctx context.Context) error {
	instance, err := instancekey.Generate()
	if err != nil {
		return err
	}
	b := local.New(instance.AEAD(), local.Options{})
	s.keys = map[string]*signer.Key{}
	for _, alg := range []signer.Algorithm{signer.RS256, signer.ES256} {
		spec := signer.Spec{Keyset: "bench", Serial: 1, Label: signer.NewLabel(), Algorithm: alg}
		ref, err := signer.Create(ctx, b, spec)
		if err != nil {
			return err
		}
		if s.keys[alg.JWS()], err = signer.Open(ctx, b, spec, ref, nil); err != nil {
			return err
		}
	}
	return nil
}

// rawRates reports what a key can sign with nothing around it, by as many
// goroutines as there are processors, and what OpenSSL does if it is here.
func (s *session) rawRates(ctx context.Context) error {
	for _, alg := range s.Algorithms {
		rate, err := rawRate(ctx, s.keys[alg], s.Duration)
		if err != nil {
			return err
		}
		s.emit(Result{Name: "raw signatures, Go", Algorithm: alg, PerSecond: rate, OfRaw: 1,
			Note: fmt.Sprintf("%d goroutines", runtime.GOMAXPROCS(0))})
		s.openssl(ctx, alg, rate)
	}
	return nil
}

// beside measures something and, right before and right after it, the raw rate
// of the algorithm. Other loads on the machine come and go within a run; a
// ratio to what was possible at that very time is what remains comparable.
func (s *session) beside(ctx context.Context, alg string, measure func() (figures, error)) (figures, float64, error) {
	before, err := rawRate(ctx, s.keys[alg], s.Duration/4)
	if err != nil {
		return figures{}, 0, err
	}
	f, err := measure()
	if err != nil {
		return figures{}, 0, err
	}
	after, err := rawRate(ctx, s.keys[alg], s.Duration/4)
	return f, (before + after) / 2, err
}

func rawRate(ctx context.Context, key *signer.Key, d time.Duration) (float64, error) {
	input := bytes.Repeat([]byte("x"), 300) // about what a token's header and payload are
	var count atomic.Int64
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	start := time.Now()
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for time.Since(start) < d {
				if _, err := key.SignJWS(ctx, input); err != nil {
					failed.Store(&err)
					return
				}
				count.Add(1)
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return 0, *err
	}
	return float64(count.Load()) / time.Since(start).Seconds(), nil
}

// openssl reports "openssl speed" for the same kind of key.
func (s *session) openssl(ctx context.Context, alg string, raw float64) {
	name := map[string]string{"RS256": "rsa2048", "ES256": "ecdsap256"}[alg]
	out, err := exec.CommandContext(ctx, "openssl", "speed", "-multi", strconv.Itoa(runtime.GOMAXPROCS(0)),
		"-seconds", strconv.Itoa(max(1, int(s.Duration.Seconds()))), "-mr", name).Output()
	if err != nil {
		s.say("openssl is not measured: %v", err)
		return
	}
	if rate, ok := opensslRate(out); ok {
		s.emit(Result{Name: "raw signatures, OpenSSL", Algorithm: alg, PerSecond: rate, OfRaw: rate / raw})
	}
}

// opensslRate reads the rate of signing from the last line of openssl speed -mr
// -multi: "+F2:…:bits:signatures a second:verifications a second" for RSA, "+F4:"
// for ECDSA.
func opensslRate(out []byte) (float64, bool) {
	lines := bufio.NewScanner(bytes.NewReader(out))
	for lines.Scan() {
		f := strings.Split(lines.Text(), ":")
		if (f[0] != "+F2" && f[0] != "+F4") || len(f) < 5 {
			continue
		}
		if rate, err := strconv.ParseFloat(f[3], 64); err == nil && rate > 0 {
			return rate, true
		}
	}
	return 0, false
}
