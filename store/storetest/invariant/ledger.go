package invariant

import (
	"context"
	"database/sql"
	"slices"
	"time"
)

// checkLedger checks that only keys have issued that were allowed to, and that
// each knows until when its tokens need it.
func (d *data) checkLedger(f *faults) {
	for _, u := range d.uses {
		k := d.key(u.keyset, u.serial)
		switch {
		case k == nil:
			f.add("the ledger has %d tokens of serial %d of keyset %s, which does not exist", u.tokens, u.serial, u.keyset)
		case k.activated.IsZero():
			f.add("the ledger has %d tokens of key %s, which has never signed", u.tokens, k.name)
		case k.lastExpiry.Before(u.maxExpiry.Time):
			f.add("a token of key %s expires at %s, after its last_expiry %s", k.name, u.maxExpiry, k.lastExpiry)
		}
	}
}

// JWKS checks what is served, as lists of kids by the names of keysets: every
// token in the ledger that has not expired has its key in its keyset's set. Tokens
// of a key that is distrusted, or that somebody has removed by hand, need not.
//
// Sets are to be fetched before: a token that is issued meanwhile would have a
// key that only newer sets have.
func JWKS(ctx context.Context, db *sql.DB, sets map[string][]string) error {
	return JWKSAt(ctx, db, sets, time.Now())
}

// JWKSAt does the same for a database whose clock says now.
func JWKSAt(ctx context.Context, db *sql.DB, sets map[string][]string, now time.Time) error {
	d, err := load(ctx, db)
	if err != nil {
		return err
	}
	var f faults
	for _, u := range d.uses {
		if !now.Before(u.maxExpiry.Time) {
			continue
		}
		k := d.key(u.keyset, u.serial)
		if k == nil || k.state == "distrusted" || k.state == "removed" && d.person(k, "signing-key.removed") {
			continue
		}
		if !slices.Contains(sets[d.nameOf(u.keyset)], k.kid) {
			f.add("key %s (%s) is %s and not in the JWK set, and a token of it is valid until %s", k.name, k.kid, k.state, u.maxExpiry)
		}
	}
	return f.err()
}

func (d *data) nameOf(keyset string) string {
	for _, ks := range d.keysets {
		if ks.id == keyset {
			return ks.name
		}
	}
	return ""
}
