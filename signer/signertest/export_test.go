package signertest

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// Recorder is a test that notes its failures and does not pass them on, so
// that a test can check what makes another one fail. All else it leaves to TB.
type Recorder struct {
	testing.TB

	mu       sync.Mutex
	failures []string
}

// Failures returns what went wrong.
func (r *Recorder) Failures() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failures
}

func (r *Recorder) note(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures = append(r.failures, strings.TrimSpace(text))
}

func (r *Recorder) Failed() bool                      { return len(r.Failures()) > 0 }
func (r *Recorder) Error(args ...any)                 { r.note(fmt.Sprintln(args...)) }
func (r *Recorder) Errorf(format string, args ...any) { r.note(fmt.Sprintf(format, args...)) }
func (r *Recorder) Fail()                             { r.note("failed") }
func (r *Recorder) FailNow()                          { r.Fail(); runtime.Goexit() }
func (r *Recorder) Fatal(args ...any)                 { r.Error(args...); runtime.Goexit() }
func (r *Recorder) Fatalf(format string, args ...any) { r.Errorf(format, args...); runtime.Goexit() }

// FailedCases runs the suite as Run does and returns the failures of each
// case that has some. If only is not empty it runs just that case.
func FailedCases(tb testing.TB, h Harness, only string) map[string][]string {
	tb.Helper()
	h, traits := h.complete(tb)
	failed := map[string][]string{}
	for _, c := range cases(h, traits) {
		if only != "" && c.name != only {
			continue
		}
		rec := &Recorder{TB: tb}
		done := make(chan struct{})
		go func() { // of its own, because Fatal ends it
			defer close(done)
			c.check(newSession(rec, h))
		}()
		<-done
		if rec.Failed() {
			failed[c.name] = rec.Failures()
		}
	}
	return failed
}
