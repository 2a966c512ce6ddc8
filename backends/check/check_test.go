package check_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zonemint/zonemint/backends/check"
	"github.com/zonemint/zonemint/signer"
	"github.com/zonemint/zonemint/signer/signertest"
)

// outcome writes steps as "create ok, sign denied".
func outcome(steps []check.Step) string {
	var texts []string
	for _, s := range steps {
		what := "ok"
		if s.Err != nil {
			what = signer.CodeOf(s.Err).String()
		}
		texts = append(texts, s.Name+" "+what)
	}
	return strings.Join(texts, ", ")
}

func TestCheck(t *testing.T) {
	for name, c := range map[string]struct {
		faults []signertest.Fault
		opts   check.Options
		want   string
		hint   string
		left   int
		adopt  bool
	}{
		"all works":      {want: "create ok, find ok, public ok, sign ok, destroy ok"},
		"kept":           {opts: check.Options{Keep: true}, want: "create ok, find ok, public ok, sign ok", left: 1},
		"may not create": {faults: []signertest.Fault{{Op: signertest.OpCreate, Err: signertest.Fail(signer.Denied)}}, want: "create denied", hint: "lacks the right to make keys"},
		"may not find": {faults: []signertest.Fault{{Op: signertest.OpFind, Err: signertest.Fail(signer.Denied)}},
			want: "create ok, find denied, public ok, sign ok, destroy ok", hint: "lacks the right to look for keys"},
		"may not sign": {faults: []signertest.Fault{{Op: signertest.OpSign, Err: signertest.Fail(signer.Denied)}},
			want: "create ok, find ok, public ok, sign denied, destroy ok", hint: "lacks the right to sign"},
		"may not destroy": {faults: []signertest.Fault{{Op: signertest.OpDestroy, Err: signertest.Fail(signer.Denied)}},
			want: "create ok, find ok, public ok, sign ok, destroy denied", hint: "lacks the right to delete keys", left: 1},
		"signs wrongly": {faults: []signertest.Fault{{Op: signertest.OpSign, Mangle: true}},
			want: "create ok, find ok, public ok, sign corrupt, destroy ok", hint: "do not use it"},
		"goes away": {faults: []signertest.Fault{{Op: signertest.OpSign, Err: signertest.Fail(signer.Unavailable)}},
			want: "create ok, find ok, public ok, sign unavailable, destroy ok", hint: "does not answer"},
		"dies while it creates": {faults: []signertest.Fault{{Op: signertest.OpCreate, Err: signertest.Fail(signer.Unavailable), Apply: true}},
			want: "create unavailable, destroy ok", hint: "does not answer"},
		"adopted":           {adopt: true, want: "adopt ok, public ok, sign ok", left: 1},
		"nothing to adopt":  {opts: check.Options{Adopt: "fake-key-77"}, want: "adopt not found", hint: "no key of that name"},
		"no such algorithm": {opts: check.Options{Algorithm: signer.PS256}, want: "create unsupported", hint: "cannot work"},
	} {
		t.Run(name, func(t *testing.T) {
			b := signertest.NewFake(t, signertest.FakeOptions{})
			for _, f := range c.faults {
				b.Inject(f)
			}
			if c.adopt {
				c.opts.Adopt = b.Plant(t, b.Traits().Algorithms[0])
			}
			told := 0
			c.opts.Done = func(check.Step) { told++ }
			steps := check.Run(t.Context(), b, c.opts)
			if got := outcome(steps); got != c.want || told != len(steps) {
				t.Errorf("%s, want %s; told of %d", got, c.want, told)
			}
			var hints string
			for _, s := range steps {
				hints += s.Hint
			}
			if (hints == "") != (c.hint == "") || !strings.Contains(hints, c.hint) {
				t.Errorf("it says %q, want %q", hints, c.hint)
			}
			if left := len(b.Keys()); left != c.left {
				t.Errorf("%d keys are left, want %d", left, c.left)
			}
		})
	}
}

// A key that is seen late is waited for, and one that is never seen is not.
func TestCheckWaitsForTheWindow(t *testing.T) {
	b := signertest.NewFake(t, signertest.FakeOptions{ConsistencyWindow: 300 * time.Millisecond})
	if got := outcome(check.Run(t.Context(), b, check.Options{Signatures: 1})); got != "create ok, find ok, public ok, sign ok, destroy ok" {
		t.Error(got)
	}
}

// Whoever gives up leaves no key behind.
func TestCheckCleansUpAfterTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // in which making a key takes no time
		b := signertest.NewFake(t, signertest.FakeOptions{})
		b.Inject(signertest.Fault{Op: signertest.OpSign, Delay: time.Hour})
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if got := outcome(check.Run(ctx, b, check.Options{})); got != "create ok, find ok, public ok, sign unavailable, destroy ok" || len(b.Keys()) != 0 {
			t.Errorf("%s, %d keys are left", got, len(b.Keys()))
		}
	})
}
