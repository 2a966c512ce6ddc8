package awskms_test

import (
	"strings"
	"testing"
	"time"

	"github.com/zonemint/zonemint/integration/awskmsdouble"
	"github.com/zonemint/zonemint/signer"
)

// state returns that of the key behind ref.
func state(s *awskmsdouble.Server, ref signer.Ref) string {
	for _, k := range s.Keys() {
		if k.ARN == arnOf(ref) {
			return k.State
		}
	}
	return "gone"
}

func TestDestroy(t *testing.T) {
	s := start(t)
	o := options(s)
	o.DeletionWindowDays = 7
	b := open(t, o)
	_, spec, ref := handle(t, b, signer.ES256)
	before := s.Calls()
	if err := signer.Destroy(t.Context(), b, spec, ref); err != nil {
		t.Fatal(err)
	}
	if got := since(s, before); got != "DescribeKey 1, DisableKey 1, ScheduleKeyDeletion 1" || state(s, ref) != awskmsdouble.PendingDeletion {
		t.Errorf("%s, %s", got, state(s, ref))
	}
	before = s.Calls()
	if err := signer.Destroy(t.Context(), b, spec, ref); err != nil || since(s, before) != "DescribeKey 1" {
		t.Errorf("again: %v, %s", err, since(s, before))
	}
	if refs, err := signer.Find(t.Context(), b, spec); err != nil || len(refs) != 0 {
		t.Errorf("found %d, %v", len(refs), err)
	}
	if err := signer.List(t.Context(), b, func(l signer.Labelled) error { t.Errorf("listed %+v", l); return nil }); err != nil {
		t.Error(err)
	}
	if _, err := signer.Open(t.Context(), b, spec, ref, nil); signer.CodeOf(err) != signer.NotFound {
		t.Errorf("opened: %v", err)
	}
	s.SetState(arnOf(ref), awskmsdouble.Disabled)
	if refs, err := signer.Find(t.Context(), b, spec); err != nil || len(refs) != 1 {
		t.Errorf("a deletion was cancelled, and %d were found, %v", len(refs), err)
	}
}

// The waiting period is the configured one.
func TestDeletionWindow(t *testing.T) {
	for days, want := range map[int]string{7: "7", 30: "30", 0: "30"} {
		s := start(t)
		o := options(s)
		o.DeletionWindowDays = days
		b := open(t, o)
		_, spec, ref := handle(t, b, signer.ES256)
		var got any
		s.Inject(awskmsdouble.Fault{Op: "ScheduleKeyDeletion", Mangle: func(m map[string]any) { got = m["PendingWindowInDays"] }})
		if err := signer.Destroy(t.Context(), b, spec, ref); err != nil {
			t.Fatal(err)
		}
		if text := strings.TrimSuffix(strings.TrimSpace(toText(got)), ".0"); text != want {
			t.Errorf("%d days make %s, want %s", days, text, want)
		}
	}
}

// A key that was used lately is refused, and left as it is.
func TestDestroyAsksForIdleness(t *testing.T) {
	s := start(t)
	now := time.Now()
	o := options(s)
	o.MinIdle = nil // a day
	o.Now = func() time.Time { return now }
	b := open(t, o)
	h, spec, ref := handle(t, b, signer.ES256)
	if _, err := sign(t.Context(), h, signer.ES256); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		used, tracked time.Time
		refused       string
	}{
		"just now":                      {used: now.Add(-time.Minute), refused: "last used"},
		"almost a day ago":              {used: now.Add(-24*time.Hour + time.Minute), refused: "last used"},
		"never, and counted for a day":  {},
		"unknown, and counted just now": {tracked: now.Add(time.Hour), refused: "known only since"},
	} {
		s.SetState(arnOf(ref), awskmsdouble.Enabled)
		s.Use(arnOf(ref), c.used)
		s.TrackUsesFrom(c.tracked)
		if !c.used.IsZero() {
			s.Inject(awskmsdouble.Fault{Op: "GetKeyLastUsage", Mangle: func(m map[string]any) {
				m["KeyLastUsage"] = map[string]any{"Operation": "Sign", "Timestamp": c.used.Unix()}
			}})
		}
		before := s.Calls()
		err := signer.Destroy(t.Context(), b, spec, ref)
		switch {
		case c.refused == "":
			if err != nil || state(s, ref) != awskmsdouble.PendingDeletion {
				t.Errorf("%s: %v, %s", name, err, state(s, ref))
			}
		case signer.CodeOf(err) != signer.Misconfigured || !strings.Contains(err.Error(), c.refused) || !strings.Contains(err.Error(), "min_idle"),
			state(s, ref) != awskmsdouble.Enabled, since(s, before) != "DescribeKey 1, GetKeyLastUsage 1":
			t.Errorf("%s: %v, %s, %s", name, err, state(s, ref), since(s, before))
		}
	}
	s.SetState(arnOf(ref), awskmsdouble.Enabled)
	s.TrackUsesFrom(time.Time{})
	s.Use(arnOf(ref), now)
	now = now.Add(25 * time.Hour)
	if err := signer.Destroy(t.Context(), b, spec, ref); err != nil {
		t.Errorf("a day later: %v", err)
	}
}

// Whatever is interrupted, destroying again ends it, and somebody else may do so.
func TestDestroyInterrupted(t *testing.T) {
	for _, op := range []string{"DescribeKey", "DisableKey", "ScheduleKeyDeletion"} {
		for _, f := range []awskmsdouble.Fault{{Op: op, Lost: true, Times: 2}, {Op: op, Cut: true, Times: 2}} {
			s := start(t)
			b := open(t, options(s))
			_, spec, ref := handle(t, b, signer.ES256)
			s.Inject(f)
			if err := signer.Destroy(t.Context(), b, spec, ref); signer.CodeOf(err) != signer.Unavailable {
				t.Errorf("%+v: %v", f, err)
			}
			s.Heal()
			if err := signer.Destroy(t.Context(), b, spec, ref); err != nil || state(s, ref) != awskmsdouble.PendingDeletion {
				t.Errorf("%+v, then again: %v, %s", f, err, state(s, ref))
			}
		}
	}
	s := start(t)
	b := open(t, options(s))
	_, spec, ref := handle(t, b, signer.ES256)
	s.Inject(awskmsdouble.Fault{Op: "DescribeKey", Mangle: func(map[string]any) { s.SetState(arnOf(ref), awskmsdouble.PendingDeletion) }})
	if err := signer.Destroy(t.Context(), b, spec, ref); err != nil {
		t.Errorf("somebody else was faster: %v", err)
	}
}

func TestDestroyUnknown(t *testing.T) {
	s := start(t)
	b := open(t, options(s))
	_, spec, ref := handle(t, b, signer.ES256)
	gone := signer.Ref(strings.Replace(string(ref), ":key/", ":key/0", 1))
	if err := signer.Destroy(t.Context(), b, spec, gone); signer.CodeOf(err) != signer.NotFound {
		t.Errorf("%v", err)
	}
	if _, err := signer.Open(t.Context(), b, spec, gone, nil); signer.CodeOf(err) != signer.NotFound {
		t.Errorf("opened: %v", err)
	}
	elsewhere := signer.Ref(strings.Replace(string(ref), s.Options().Region, "us-east-1", 1))
	if err := signer.Destroy(t.Context(), b, spec, elsewhere); signer.CodeOf(err) != signer.Misconfigured || !strings.Contains(err.Error(), "Region") {
		t.Errorf("another Region's: %v", err)
	}
}

// The replicas of a key would go on signing: they are named, and the key is left as it is.
func TestDestroyWithReplicas(t *testing.T) {
	s := start(t)
	o := options(s)
	o.MultiRegion = true
	b := open(t, o)
	h, spec, ref := handle(t, b, signer.ES256)
	s.Replicate(arnOf(ref), "us-east-1", "eu-west-3")
	err := signer.Destroy(t.Context(), b, spec, ref)
	if signer.CodeOf(err) != signer.Misconfigured || !strings.Contains(err.Error(), "us-east-1, eu-west-3") || state(s, ref) != awskmsdouble.Enabled {
		t.Errorf("%v, %s", err, state(s, ref))
	}
	if _, err := sign(t.Context(), h, signer.ES256); err != nil {
		t.Error(err)
	}
	s.Replicate(arnOf(ref))
	if err := signer.Destroy(t.Context(), b, spec, ref); err != nil || state(s, ref) != awskmsdouble.PendingDeletion {
		t.Errorf("without replicas: %v, %s", err, state(s, ref))
	}
	s.SetState(arnOf(ref), awskmsdouble.PendingReplicaDeletion)
	s.Replicate(arnOf(ref), "us-east-1")
	if err := signer.Destroy(t.Context(), b, spec, ref); err != nil {
		t.Errorf("somebody has destroyed it with its replicas: %v", err)
	}
}
