// Package invariant checks what must hold of a database of zonemint's whatever
// happens: in the middle of a rotation, after a crash between two steps, with two
// replicas racing. It reads behind the store's back and knows nothing of its code,
// so that a fault of the store does not hide itself.
package invariant

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Check checks what holds after every step and after every crash: the numbering
// and naming of keys, that at most one signs, that each row fits its state, that
// nothing was issued by a key that may not sign, and that nothing was taken away
// from verifiers before its time.
func Check(ctx context.Context, db *sql.DB) error {
	d, err := load(ctx, db)
	if err != nil {
		return err
	}
	var f faults
	for i := range d.keys {
		d.keys[i].check(&f)
		d.checkEnd(&f, &d.keys[i])
	}
	for _, ks := range d.keysets {
		keys := d.of(ks.id)
		checkSerials(&f, ks.name, keys)
		checkActive(&f, keys)
		d.checkSigns(&f, ks.name, keys)
		if ks.feeds != 1 {
			f.add("keyset %s has %d revocation feeds, want 1", ks.name, ks.feeds)
		}
	}
	d.checkUnique(&f)
	d.checkLedger(&f)
	return f.err()
}

// CheckSettled checks what holds when nothing is under way, and Check besides:
// each keyset has one key that signs, one published successor of the kind that
// its policy wants, and nothing half made.
func CheckSettled(ctx context.Context, db *sql.DB) error {
	d, err := load(ctx, db)
	if err != nil {
		return err
	}
	var f faults
	for _, ks := range d.keysets {
		count := map[string]int{}
		for _, k := range d.of(ks.id) {
			if k.role != "primary" {
				continue
			}
			count[k.state]++
			if k.state == "published" && (k.backend != ks.backend || k.algorithm != ks.algorithm) {
				f.add("successor %s is %s in backend %q, the keyset wants %s in %q", k.name, k.algorithm, k.backend, ks.algorithm, ks.backend)
			}
		}
		for state, want := range map[string]int{"active": 1, "published": 1, "creating": 0} {
			if count[state] != want {
				f.add("keyset %s has %d %s keys, want %d", ks.name, count[state], state, want)
			}
		}
	}
	return errors.Join(Check(ctx, db), f.err())
}

// KIDs checks that every key that was made here carries the kid that it must:
// its keyset's name, its serial, and the beginning of its thumbprint.
func KIDs(ctx context.Context, db *sql.DB) error {
	d, err := load(ctx, db)
	if err != nil {
		return err
	}
	var f faults
	for _, k := range d.keys {
		if k.imported || k.kid == "" {
			continue
		}
		if want := fmt.Sprintf("%s-%.8s", strings.ReplaceAll(k.name, "/", "-"), k.thumbprint); k.kid != want {
			f.add("key %s has the kid %q, want %q", k.name, k.kid, want)
		}
	}
	return f.err()
}

// Backend checks the labels of the keys that a backend has: each is known to a
// row, and none comes twice.
func Backend(ctx context.Context, db *sql.DB, labels []string) error {
	d, err := load(ctx, db)
	if err != nil {
		return err
	}
	var f faults
	seen := map[string]bool{}
	for _, label := range labels {
		if seen[label] {
			f.add("the backend has two keys labelled %s", label)
		}
		seen[label] = true
		if !slices.ContainsFunc(d.keys, func(k key) bool { return k.label == label }) {
			f.add("the backend has a key labelled %s, which no row knows", label)
		}
	}
	return f.err()
}

// faults collects what is wrong.
type faults []error

func (f *faults) add(format string, args ...any) { *f = append(*f, fmt.Errorf(format, args...)) }

func (f *faults) err() error { return errors.Join(*f...) }
