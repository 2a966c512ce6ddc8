package integration

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	askers        = 32          // at the same time, of a backend and of zonemint alike
	turn          = time.Second // how long each of the two is measured in a round
	countedTokens = 300         // outside what is timed
)

// signatures is a backend under measurement, and how zonemint is to sign with it.
type signatures struct {
	settings settings
	// direct returns how many signatures a second the backend makes for all
	// askers, with nothing of zonemint in between.
	direct func(t *testing.T) float64
	// The processes that sign for direct and for zonemint, 0 for zonemint's own.
	forDirect, forTokens int
	// count issues countedTokens and returns how the backend was called
	// meanwhile, as somebody else than zonemint has counted it.
	count func(t *testing.T, in *installation, s *server) calls
}

// calls are those a backend got: for a signature each, and any others.
type calls struct{ signings, others int }

// BenchmarkTokensBesideTheBackend compares the tokens that zonemint issues with
// the signatures that its backend makes without it, by turns in one run, so that
// what else the machine does hits both. The backend, zonemint, the database and
// whoever asks share one machine. A token costs more of the processor than its
// signature: where the processor is all that limits both, ratio cannot be above
// cpu-ratio. A backend at a distance, which is named by how much later its
// answers come, keeps its callers waiting instead.
//
//	export ZONEMINT_TEST_VAULT=$(scripts/test-vault)
//	scripts/with-postgres go test -run '^$' -bench TokensBesideTheBackend ./integration
//
// Figures are medians of the rounds. Processor times are those of the backend
// and of zonemint, without clients and Postgres. SoftHSM is a library: its time
// is in that of zonemint, and that of direct signatures has their caller in it.
// The calls are counted before, by Vault's audit log and by p11-kit.
func BenchmarkTokensBesideTheBackend(b *testing.B) {
	for _, m := range []struct {
		name     string
		start    func(t *testing.T, distance time.Duration) signatures
		distance time.Duration
	}{
		{"softhsm", softHSMSignatures, 0},
		{"softhsm-50ms", softHSMSignatures, 50 * time.Millisecond},
		{"vault", vaultSignatures, 0},
		{"vault-5ms", vaultSignatures, 5 * time.Millisecond},
		{"vault-50ms", vaultSignatures, 50 * time.Millisecond},
	} {
		b.Run(m.name+"/sqlite", func(b *testing.B) {
			asTest(b, func(t *testing.T) { m.start(t, m.distance).beside(b, t, newSQLite(t, t.TempDir())) })
		})
		b.Run(m.name+"/postgres", func(b *testing.B) {
			asTest(b, func(t *testing.T) { m.start(t, m.distance).beside(b, t, newPostgres(t)) })
		})
	}
}

// asTest runs a part of a benchmark as a test of its own, which is what servers
// are started by and end with.
func asTest(b *testing.B, part func(t *testing.T)) {
	ran, skipped := false, false
	all := func(string, string) (bool, error) { return true, nil }
	ok := testing.RunTests(all, []testing.InternalTest{{Name: b.Name(), F: func(t *testing.T) {
		if ran {
			return // -count counts for tests, too
		}
		ran = true
		defer func() { skipped = t.Skipped() }()
		part(t)
	}}})
	if skipped {
		b.Skip("something is missing: go test -v says what")
	}
	if !ok {
		b.FailNow()
	}
}

// beside measures the backend and zonemint by turns.
func (m signatures) beside(b *testing.B, t *testing.T, db database) {
	in := installAdmin(t, db, m.settings)
	s := in.startSettled(t)
	c := m.count(t, in, s) // before anything that wrk leaves unfinished
	token := s.tokenRequest(in.admin)
	m.direct(t) // what is slow the first time
	token.drive(t)
	direct, tokens := series{backend: m.forDirect}, series{backend: m.forTokens, own: s.cmd.Process.Pid}
	var ratios []float64
	for b.Loop() {
		for range rounds(6, 20) {
			d := direct.measure(t, m.direct)
			ratios = append(ratios, tokens.measure(t, token.drive)/d)
		}
	}
	b.Logf("ratio in each round: %.2f", ratios)
	b.ReportMetric(0, "ns/op") // says nothing
	b.ReportMetric(median(direct.rates), "direct/s")
	b.ReportMetric(median(tokens.rates), "tokens/s")
	b.ReportMetric(median(ratios), "ratio")
	b.ReportMetric(median(direct.costs), "cpu-µs/direct")
	b.ReportMetric(median(tokens.costs), "cpu-µs/token")
	b.ReportMetric(median(tokens.owns), "zonemint-cpu-µs/token")
	b.ReportMetric(median(direct.costs)/median(tokens.costs), "cpu-ratio")
	b.ReportMetric(float64(c.signings)/countedTokens, "signings/token")
	b.ReportMetric(float64(c.others)/countedTokens, "other-calls/token")
}

// series is something measured in every round, and the processes behind it.
type series struct {
	backend, own int
	rates        []float64 // a second
	costs, owns  []float64 // microseconds of the processor, of both and of own
}

func (s *series) measure(t *testing.T, rate func(t *testing.T) float64) float64 {
	backend, own := processorTime(t, s.backend), processorTime(t, s.own)
	r := rate(t)
	backend, own = processorTime(t, s.backend)-backend, processorTime(t, s.own)-own
	n := r * turn.Seconds()
	s.rates = append(s.rates, r)
	s.costs = append(s.costs, float64((backend+own).Microseconds())/n)
	s.owns = append(s.owns, float64(own.Microseconds())/n)
	return r
}

func median(of []float64) float64 {
	of = slices.Sorted(slices.Values(of))
	return (of[(len(of)-1)/2] + of[len(of)/2]) / 2
}

// startSettled starts a server and waits until it has made all keys that it
// will make for now.
func (in *installation) startSettled(t *testing.T) *server {
	t.Helper()
	s := in.start(t)
	s.overConnect(t, in.admin).mustIssue(t, "first")
	eventually(t, 20*time.Second, "the successor of the key is published", func() bool {
		return strings.Count(string(s.jwks(t, "zone").body), `"kid"`) == 2
	})
	return s
}

// issueCounted issues countedTokens through as many callers as are measured.
func issueCounted(t *testing.T, c client) {
	t.Helper()
	var callers sync.WaitGroup
	for i := range askers {
		callers.Go(func() {
			for n := i; n < countedTokens; n += askers {
				if _, err := c.issue(t.Context(), fmt.Sprint("zone-", n), 10*time.Second); err != nil {
					t.Error("issuing:", err)
				}
			}
		})
	}
	callers.Wait()
}

// processorTime is what Linux says that a process has used so far.
func processorTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	if pid == 0 {
		return 0
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		missing(t, "processor times are only known for Linux: "+err.Error())
	}
	_, rest, _ := strings.Cut(string(text), ") ") // the name may have spaces
	var user, system int64
	if _, err := fmt.Sscan(strings.Join(strings.Fields(rest)[11:13], " "), &user, &system); err != nil {
		t.Fatal("processor times:", err)
	}
	return time.Duration(user+system) * 10 * time.Millisecond // USER_HZ is 100 on all that Go runs on
}
