package agent_test

import (
	"context"
	"math/rand/v2"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// TestADayWithOutages has somebody read the file every second of a day, or every fifth, in which the
// server is away at random, each time for less than a third of a token's life. The
// machine's clock may be wrong, and may be set.
func TestADayWithOutages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { aDay(t, func(time.Duration) time.Duration { return 0 }, time.Second) })
	always := func(d time.Duration) func(time.Duration) time.Duration {
		return func(time.Duration) time.Duration { return d }
	}
	noon := func(d time.Duration) func(time.Duration) time.Duration {
		return func(into time.Duration) time.Duration {
			if into < 12*time.Hour {
				return 0
			}
			return d
		}
	}
	for name, wrong := range map[string]func(into time.Duration) time.Duration{
		"the clock is behind":             always(-10 * time.Hour),
		"the clock is ahead":              always(10 * time.Hour),
		"the clock is set back at noon":   noon(-3 * time.Hour),
		"the clock is set ahead at noon":  noon(3 * time.Hour),
		"the clock loses half its time":   func(into time.Duration) time.Duration { return -into / 2 },
		"the clock gains a twentieth":     func(into time.Duration) time.Duration { return into / 20 },
		"the clock is put right at noon":  func(into time.Duration) time.Duration { return -5*time.Hour - noon(-5*time.Hour)(into) },
		"the clock is put back and forth": func(into time.Duration) time.Duration { return time.Duration(into.Hours()) % 2 * 2 * time.Hour },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { aDay(t, wrong, 5*time.Second) })
		})
	}
}

func aDay(t *testing.T, wrong func(into time.Duration) time.Duration, step time.Duration) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	w, random := newWorld(t), rand.New(rand.NewPCG(seed, 1))
	began := time.Now()
	w.o.Now = func() time.Time { return time.Now().Add(wrong(time.Since(began))) }
	// The next try comes within 5 seconds when the end is near, and one that hangs
	// takes as long.
	const longest = life/3 - 15*time.Second
	outages := plan(random, began, longest)
	w.server.fail = func(ctx context.Context) error { return during(ctx, outages, random) }
	_, stop := w.start(t)
	synctest.Wait()
	for time.Since(began) < 24*time.Hour {
		text, err := os.ReadFile(w.path)
		if err != nil {
			t.Fatal(err)
		}
		id, expires, err := expiryOf(string(text))
		if err != nil {
			t.Fatal(err)
		}
		if !time.Now().Before(expires) {
			t.Fatalf("%s into the day the file has %s, which has expired\n%s", time.Since(began), id, w.log)
		}
		time.Sleep(step)
	}
	stop()
	hit := w.log.count("attempt failed")
	t.Logf("%d outages, %d attempts failed, %d tokens issued", len(outages), hit, w.server.count())
	if hit == 0 {
		t.Error("no outage was noticed, so nothing was shown")
	}
	if n := w.server.count(); n < 24*3/2-6 || n > 60 {
		t.Errorf("%d tokens were issued", n)
	}
}

type outage struct{ from, to time.Time }

// plan spreads outages over a day.
func plan(random *rand.Rand, began time.Time, longest time.Duration) []outage {
	var all []outage
	for at := began.Add(time.Minute); at.Before(began.Add(24 * time.Hour)); {
		length := time.Duration(random.Int64N(int64(longest)))
		if random.IntN(3) == 0 {
			length = longest
		}
		all = append(all, outage{at, at.Add(length)})
		at = at.Add(length + 3*time.Minute + time.Duration(random.Int64N(int64(40*time.Minute))))
	}
	return all
}

// during fails in an outage: at once, or after the caller has lost patience.
func during(ctx context.Context, all []outage, random *rand.Rand) error {
	for _, o := range all {
		if now := time.Now(); now.Before(o.from) || !now.Before(o.to) {
			continue
		}
		if random.IntN(2) == 0 {
			<-ctx.Done()
		}
		return errDown
	}
	return nil
}

// TestAnOutageThatIsTooLong is about the end of a token that could not be renewed.
func TestAnOutageThatIsTooLong(t *testing.T) {
	for name, remove := range map[string]bool{"the file is left": false, "the file is removed": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.o.RemoveExpired = remove
				a, stop := w.start(t)
				defer stop()
				time.Sleep(time.Minute)
				w.server.breaks(errDown)
				time.Sleep(life - time.Minute - time.Second)
				if a.Ready() != nil || w.has(t) == "" {
					t.Fatal("before its end:", a.Ready())
				}
				time.Sleep(5 * time.Hour)
				if a.Ready() == nil {
					t.Error("ready with a token that has expired")
				}
				if there := w.has(t) != ""; there == remove {
					t.Errorf("there is a file: %v", there)
				}
				if n := w.log.count("the token has expired"); n != 1 {
					t.Errorf("the end was reported %d times", n)
				}
				if n := w.log.count("attempt failed"); n < 5*60*60/5 {
					t.Errorf("%d attempts in 5 hours", n)
				}
				w.server.breaks(nil)
				time.Sleep(6 * time.Second)
				if a.Ready() != nil || w.id(t) != "jti-2" {
					t.Error("after the outage:", a.Ready())
				}
			})
		})
	}
}

// TestRenewalsAreSpreadAndNeverLate measures when two hundred agents come.
func TestRenewalsAreSpreadAndNeverLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var first, last time.Duration
		for range 200 {
			w := newWorld(t)
			_, stop := w.start(t)
			time.Sleep(life)
			stop()
			gap := w.server.issued[1].Sub(w.server.issued[0])
			if gap > life*2/3 || gap < life*61/100 {
				t.Fatalf("renewed after %s", gap)
			}
			if first == 0 || gap < first {
				first = gap
			}
			last = max(last, gap)
		}
		if last-first < life/40 {
			t.Errorf("all come between %s and %s", first, last)
		}
	})
}
