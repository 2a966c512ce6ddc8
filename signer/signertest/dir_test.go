package signertest_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zonemint/zonemint/signer"
	"github.com/zonemint/zonemint/signer/signertest"
)

func openDir(tb testing.TB, path string, opts signertest.DirOptions) *signertest.Dir {
	tb.Helper()
	d, err := signertest.OpenDir(path, opts)
	if err != nil {
		tb.Fatal(err)
	}
	return d
}

func TestDirConforms(t *testing.T) {
	for name, opts := range map[string]signertest.DirOptions{
		"at once":    {},
		"eventually": {VisibleAfter: 100 * time.Millisecond, Delay: 10 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			path := t.TempDir()
			signertest.Run(t, signertest.Harness{
				Open:         func(tb testing.TB) signer.Backend { return openDir(tb, path, opts) },
				UnknownRef:   signer.Ref("key-abcdefghijklmnopqrstuvwxyz.json"),
				BreakKey:     func(tb testing.TB, ref signer.Ref) { breakKey(tb, path, ref) },
				PlantForeign: func(tb testing.TB) signer.Ref { return plantForeign(tb, openDir(tb, path, opts)) },
				Stall:        func(tb testing.TB) func() { return stallDir(tb, path) },
			})
		})
	}
}

func stallDir(tb testing.TB, path string) (resume func()) {
	end, err := openDir(tb, path, signertest.DirOptions{}).Stall()
	if err != nil {
		tb.Fatal(err)
	}
	return func() {
		if err := end(); err != nil {
			tb.Error(err)
		}
	}
}

// breakKey puts another private key into the file of ref.
func breakKey(tb testing.TB, path string, ref signer.Ref) {
	tb.Helper()
	other, err := openDir(tb, path, signertest.DirOptions{}).Create(tb.Context(), spec(signer.ES256))
	if err != nil {
		tb.Fatal(err)
	}
	own, donor := readJSON(tb, path, ref), readJSON(tb, path, other)
	own["pem"] = donor["pem"]
	text, err := json.Marshal(own)
	if err != nil {
		tb.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(path, string(ref)), text, 0o600); err != nil {
		tb.Fatal(err)
	}
}

func readJSON(tb testing.TB, path string, ref signer.Ref) (fields map[string]any) {
	tb.Helper()
	text, err := os.ReadFile(filepath.Join(path, string(ref)))
	if err == nil {
		err = json.Unmarshal(text, &fields)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return fields
}

// TestDirVisibility: Find and List lag behind Create, Open and Keys do not.
func TestDirVisibility(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const after = time.Hour
		path := t.TempDir()
		d := openDir(t, path, signertest.DirOptions{VisibleAfter: after})
		if got := d.Traits().ConsistencyWindow; got <= after || got > after+time.Second {
			t.Errorf("declares a window of %v", got)
		}
		s := spec(signer.ES256)
		ref, err := signer.Create(t.Context(), d, s)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(after - time.Nanosecond)
		wantSeen(t, d, s, nil)
		if _, err := signer.Open(t.Context(), d, s, ref, nil); err != nil {
			t.Error(err)
		}
		wantKeys(t, d, s.Label)
		wantSeen(t, openDir(t, path, signertest.DirOptions{}), s, []signer.Ref{ref})
		time.Sleep(time.Nanosecond)
		wantSeen(t, d, s, []signer.Ref{ref})
	})
}

// wantSeen checks what Find and List show under the label of s.
func wantSeen(t *testing.T, d *signertest.Dir, s signer.Spec, want []signer.Ref) {
	t.Helper()
	found, err := signer.Find(t.Context(), d, s)
	if err != nil || !slices.EqualFunc(found, want, signer.SameRef) {
		t.Errorf("found %q, %v, want %q", found, err, want)
	}
	var listed []signer.Ref
	err = signer.List(t.Context(), d, func(l signer.Labelled) error {
		if l.Label == s.Label {
			listed = append(listed, l.Ref)
		}
		return nil
	})
	if err != nil || !slices.EqualFunc(listed, want, signer.SameRef) {
		t.Errorf("listed %q, %v, want %q", listed, err, want)
	}
}

// wantKeys checks the labels of the keys that exist.
func wantKeys(t *testing.T, d *signertest.Dir, want ...string) {
	t.Helper()
	keys, err := d.Keys()
	var got []string
	for _, k := range keys {
		got = append(got, k.Label)
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("there are keys labelled %q, %v, want %q", got, err, want)
	}
}

// TestDirDuplicates: whoever creates twice has two keys.
func TestDirDuplicates(t *testing.T) {
	d := openDir(t, t.TempDir(), signertest.DirOptions{})
	s := spec(signer.ES256)
	var refs []signer.Ref
	for range 2 {
		ref, err := signer.Create(t.Context(), d, s)
		if err != nil {
			t.Fatal(err)
		}
		refs = append(refs, ref)
	}
	wantSeen(t, d, s, refs)
	wantKeys(t, d, s.Label, s.Label)
}

// TestDirDelay: whoever leaves in the first half of the delay has made no key,
// in the second one that nobody knows of.
func TestDirDelay(t *testing.T) {
	for _, tc := range []struct {
		name  string
		after time.Duration
		keys  int
	}{
		{"first half", 29 * time.Minute, 0},
		{"second half", 31 * time.Minute, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := openDir(t, t.TempDir(), signertest.DirOptions{Delay: time.Hour})
				ctx, cancel := context.WithTimeout(t.Context(), tc.after)
				defer cancel()
				if _, err := signer.Create(ctx, d, spec(signer.ES256)); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("create: %v", err)
				}
				if keys, err := d.Keys(); err != nil || len(keys) != tc.keys {
					t.Errorf("%d keys, %v, want %d", len(keys), err, tc.keys)
				}
			})
		})
	}
}

// TestDirRefs: a reference does not lead out of the directory.
func TestDirRefs(t *testing.T) {
	parent := t.TempDir()
	s := spec(signer.ES256)
	ref, err := signer.Create(t.Context(), openDir(t, parent, signertest.DirOptions{}), s)
	if err != nil {
		t.Fatal(err)
	}
	d := openDir(t, filepath.Join(parent, "inner"), signertest.DirOptions{})
	outside := signer.Ref("../" + string(ref))
	_, err = signer.Open(t.Context(), d, s, outside, nil)
	wantCode(t, err, signer.NotFound)
	wantCode(t, signer.Destroy(t.Context(), d, s, outside), signer.NotFound)
	wantKeys(t, openDir(t, parent, signertest.DirOptions{}), s.Label)
}
