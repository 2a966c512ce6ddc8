package awskms_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zonemint/zonemint/integration/awskmsdouble"
	"github.com/zonemint/zonemint/signer"
)

func toText(v any) string { return fmt.Sprint(v) }

// A listing goes through all pages, and looks at others' keys once in a process.
func TestPages(t *testing.T) {
	s := start(t)
	b := open(t, options(s))
	for range 1500 {
		if _, err := s.Plant(awskmsdouble.Planted{Spec: "SYMMETRIC_DEFAULT"}); err != nil {
			t.Fatal(err)
		}
	}
	made := map[string]signer.Ref{}
	for range 20 {
		spec := newSpec(signer.ES256)
		made[spec.Label] = create(t, b, spec)
	}
	for i, want := range []string{"DescribeKey 1520, ListKeys 2", "DescribeKey 20, ListKeys 2"} {
		before := s.Calls()
		seen := map[string]int{}
		err := signer.List(t.Context(), b, func(l signer.Labelled) error {
			if seen[l.Label]++; !signer.SameRef(l.Ref, made[l.Label]) || l.Keyset != "dataplane/default" || l.Serial != 3 || time.Since(l.CreatedAt).Abs() > time.Minute {
				t.Errorf("%+v", l)
			}
			return nil
		})
		if err != nil || len(seen) != len(made) {
			t.Errorf("listed %d, %v", len(seen), err)
		}
		for label, n := range seen {
			if n != 1 {
				t.Errorf("%s was listed %d times", label, n)
			}
		}
		if got := since(s, before); got != want {
			t.Errorf("listing %d took %s, want %s", i+1, got, want)
		}
	}
}

// A service that says that there is more, and not where, is not asked for ever.
func TestPagesWithoutEnd(t *testing.T) {
	s := start(t)
	b := open(t, options(s))
	for _, marker := range []string{"", "c2FtZQ=="} {
		s.Inject(awskmsdouble.Fault{Op: "ListKeys", Times: -1, Mangle: func(m map[string]any) { m["Truncated"], m["NextMarker"] = true, marker }})
		_, err := signer.Find(t.Context(), b, newSpec(signer.ES256))
		if err == nil {
			t.Errorf("marker %q: no error", marker)
		}
		s.Heal()
	}
}

// Two keys with one label are both found, and one that is not what it was to be is
// not taken for it.
func TestFindDoubtful(t *testing.T) {
	s := start(t)
	b := open(t, options(s))
	spec := newSpec(signer.ES256)
	create(t, b, spec)
	create(t, b, spec)
	if refs, err := signer.Find(t.Context(), b, spec); err != nil || len(refs) != 2 || signer.SameRef(refs[0], refs[1]) {
		t.Errorf("%q, %v", refs, err)
	}
	for name, change := range map[string]func(*signer.Spec){
		"serial":    func(s *signer.Spec) { s.Serial++ },
		"keyset":    func(s *signer.Spec) { s.Keyset = "zone" },
		"algorithm": func(s *signer.Spec) { s.Algorithm = signer.ES384 },
	} {
		other := spec
		change(&other)
		if _, err := signer.Find(t.Context(), b, other); signer.CodeOf(err) != signer.Corrupt {
			t.Errorf("another %s: %v", name, err)
		}
	}
	lied := newSpec(signer.ES256)
	if _, err := s.Plant(awskmsdouble.Planted{Spec: "RSA_2048", Description: lied.Label + ": serial 3 of keyset dataplane/default, ES256"}); err != nil {
		t.Fatal(err)
	}
	if _, err := signer.Find(t.Context(), b, lied); signer.CodeOf(err) != signer.Corrupt {
		t.Errorf("an RSA key described as ES256: %v", err)
	}
}

const lockedPolicy = `{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::111122223333:user/somebody"}, "Action": "kms:*", "Resource": "*"}]}`

// A key that cannot be read could be the one that is looked for: it is not passed over
// unless the settings say so, and never if nothing can be read.
func TestUnreadableKeys(t *testing.T) {
	s := start(t)
	b := open(t, options(s))
	o := options(s)
	o.SkipUnreadableKeys = true
	skips := open(t, o)
	locked, err := s.Plant(awskmsdouble.Planted{Spec: "SYMMETRIC_DEFAULT", Policy: lockedPolicy})
	if err != nil {
		t.Fatal(err)
	}
	_, err = signer.Find(t.Context(), skips, newSpec(signer.ES256))
	if signer.CodeOf(err) != signer.Denied || signer.MissingPermission(err) != "kms:DescribeKey" {
		t.Errorf("nothing can be read: %v", err)
	}
	spec := newSpec(signer.ES256)
	ref := create(t, b, spec)
	_, err = signer.Find(t.Context(), b, spec)
	if signer.CodeOf(err) != signer.Denied || signer.MissingPermission(err) != "kms:DescribeKey" || !strings.Contains(err.Error(), "skip_unreadable_keys") || !strings.Contains(err.Error(), locked) {
		t.Errorf("one cannot be read: %v", err)
	}
	refs, err := signer.Find(t.Context(), skips, spec)
	if err != nil || len(refs) != 1 || !signer.SameRef(refs[0], ref) {
		t.Errorf("passed over: %q, %v", refs, err)
	}
	s.Inject(awskmsdouble.Fault{Op: "DescribeKey", Error: &awskmsdouble.Exception{Type: "UnrecognizedClientException"}})
	if _, err := signer.Find(t.Context(), skips, spec); signer.CodeOf(err) != signer.Denied {
		t.Errorf("a credential that is not valid any more: %v", err)
	}
}

// A scan that is throttled says so, and the next one goes on with what is left.
func TestScanIsThrottled(t *testing.T) {
	s := start(t)
	b := open(t, options(s))
	for range 300 {
		if _, err := s.Plant(awskmsdouble.Planted{Spec: "SYMMETRIC_DEFAULT"}); err != nil {
			t.Fatal(err)
		}
	}
	s.Limit("DescribeKey", 50)
	_, err := signer.Find(t.Context(), b, newSpec(signer.ES256))
	if signer.CodeOf(err) != signer.Throttled {
		t.Fatalf("%v", err)
	}
	if n := s.Calls()["DescribeKey"]; n > 200 {
		t.Errorf("%d calls after the service had said that it is too much", n)
	}
	s.Heal()
	before := s.Calls()["DescribeKey"]
	if _, err := signer.Find(t.Context(), b, newSpec(signer.ES256)); err != nil {
		t.Error(err)
	}
	if n := s.Calls()["DescribeKey"] - before; n > 290 {
		t.Errorf("the next one looked at %d keys of 300", n)
	}
}

// A key that is listed and cannot be read yet may be the one that is looked for: it is
// waited for, and never passed over. A listing passes it over.
func TestListedBeforeItCanBeRead(t *testing.T) {
	s := start(t)
	b := open(t, options(s))
	s.SetDelays(awskmsdouble.Delays{Describe: window / 2})
	s.Inject(awskmsdouble.Fault{Op: "CreateKey", Lost: true})
	spec := newSpec(signer.ES256)
	if _, err := signer.Create(t.Context(), b, spec); err == nil {
		t.Fatal("no error")
	}
	if refs, err := signer.Find(t.Context(), b, spec); err != nil || len(refs) != 1 || arnOf(refs[0]) != s.Keys()[0].ARN {
		t.Errorf("found %q, %v", refs, err)
	}
	s.SetDelays(awskmsdouble.Delays{Describe: time.Hour})
	s.Inject(awskmsdouble.Fault{Op: "CreateKey", Lost: true})
	late := newSpec(signer.ES256)
	if _, err := signer.Create(t.Context(), b, late); err == nil {
		t.Fatal("no error")
	}
	if refs, err := signer.Find(t.Context(), b, late); signer.CodeOf(err) != signer.Unavailable || len(refs) != 0 {
		t.Errorf("found %q, %v", refs, err)
	}
	var listed []string
	err := signer.List(t.Context(), b, func(l signer.Labelled) error { listed = append(listed, l.Label); return nil })
	if err != nil || !slices.Equal(listed, []string{spec.Label}) {
		t.Errorf("listed %q, %v", listed, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	o := options(s)
	o.ConsistencyWindow = time.Minute
	before := s.Calls()["DescribeKey"]
	go func() {
		for s.Calls()["DescribeKey"] < before+3 {
			time.Sleep(time.Millisecond)
		}
		cancel()
	}()
	if _, err := signer.Find(ctx, open(t, o), late); signer.CodeOf(err) != signer.Canceled {
		t.Errorf("the caller has left: %v", err)
	}
}
