package store

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
)

// Revocation is a token ID that verifiers of a keyset refuse until ExpiresAt, and
// for as long afterwards as they would accept the token.
type Revocation struct {
	KeysetID  uuid.UUID
	JTI       string
	Seq       int64     // position in the keyset's feed
	ExpiresAt time.Time // of the token; never lowered
	RevokedAt time.Time
	LiftedAt  time.Time // zero: it holds
	Reason    string
	Caller    string
}

// Leeway is how long after its expiry a verifier may still accept a token: the
// most that one can be told to allow, token.MaxLeeway, which the store does not
// import. A token counts as expired only then wherever it is about revoking it.
const Leeway = 5 * time.Minute

// acceptable says whether a verifier may accept a token that expires then.
func acceptable(expiry, now time.Time) bool { return expiry.Add(Leeway).After(now) }

// holds says whether verifiers refuse the token because of the revocation.
func (r *Revocation) holds(now time.Time) bool {
	return r.LiftedAt.IsZero() && acceptable(r.ExpiresAt, now)
}

// Revoke is a token ID to be revoked, and when its token expires.
type Revoke struct {
	JTI       string
	ExpiresAt time.Time
}

// auditJTIs is how many token IDs an audit event lists, of those it is about.
const auditJTIs = 100

// Revoke revokes token IDs of a keyset, all or none, and returns their
// revocations in the order of items. Of a token ID that is revoked already only a
// later expiry is taken; one whose revocation was lifted is revoked again. Token
// IDs that expired longer than [Leeway] ago by the database's clock are left out.
// ErrNotFound if there is no such keyset, ErrRejected for text that cannot be kept.
func (d *DB) Revoke(ctx context.Context, keyset uuid.UUID, items []Revoke, reason string, by Actor) ([]Revocation, error) {
	items, err := mergeItems(items)
	if err == nil {
		err = checkText(reason)
	}
	if err != nil {
		return nil, fmt.Errorf("revoking: %w", err)
	}
	var all []Revocation
	err = d.changeFeeds(ctx, by, func(tx Tx, now time.Time) (deed, error) {
		feed, err := tx.LockFeed(ctx, keyset)
		if err != nil {
			return deed{}, err
		}
		old, err := tx.RevocationsOf(ctx, keyset, jtisOf(items))
		if err != nil {
			return deed{}, err
		}
		like := Revocation{KeysetID: keyset, Seq: feed.Seq, RevokedAt: now, Reason: reason, Caller: by.Name}
		var changed []Revocation
		if all, changed = revise(old, items, like); len(changed) == 0 {
			return deed{}, nil
		}
		if err := tx.PutRevocations(ctx, keyset, changed); err != nil {
			return deed{}, err
		}
		name, err := keysetName(ctx, tx, keyset)
		if err != nil {
			return deed{}, err
		}
		return revokeDeed(name, changed, reason), tx.AdvanceFeed(ctx, keyset, feed.Seq+int64(len(changed)))
	})
	if err != nil {
		return nil, fmt.Errorf("revoking: %w", err)
	}
	return all, nil
}

// mergeItems checks items and returns them with each token ID once, with its last
// expiry.
func mergeItems(items []Revoke) ([]Revoke, error) {
	at := make(map[string]int, len(items))
	var merged []Revoke
	for _, item := range items {
		if item.JTI == "" {
			return nil, fmt.Errorf("an empty token ID: %w", ErrRejected)
		}
		if err := checkText(item.JTI); err != nil {
			return nil, fmt.Errorf("token ID %q: %w", item.JTI, err)
		}
		// To the microsecond, which is what databases keep; they do not agree on
		// how to round.
		item.ExpiresAt = item.ExpiresAt.UTC().Truncate(time.Microsecond)
		i, ok := at[item.JTI]
		switch {
		case !ok:
			at[item.JTI] = len(merged)
			merged = append(merged, item)
		case item.ExpiresAt.After(merged[i].ExpiresAt):
			merged[i].ExpiresAt = item.ExpiresAt
		}
	}
	return merged, nil
}

func jtisOf(items []Revoke) []string {
	jtis := make([]string, len(items))
	for i, item := range items {
		jtis[i] = item.JTI
	}
	return jtis
}

// revise returns the revocations of items, and those among them that are new or
// changed, which follow like.Seq. An expiry is never lowered, even of what was
// lifted: a reader that has not heard of the lifting keeps the one it knows, and
// is to hear of what follows until then.
func revise(old []Revocation, items []Revoke, like Revocation) (all, changed []Revocation) {
	known := make(map[string]Revocation, len(old))
	for _, r := range old {
		known[r.JTI] = r
	}
	for _, item := range items {
		r, ok := known[item.JTI]
		later := item.ExpiresAt.After(r.ExpiresAt)
		switch {
		case ok && r.holds(like.RevokedAt) && !later:
			all = append(all, r)
			continue
		case !acceptable(item.ExpiresAt, like.RevokedAt):
			continue // expired
		case !ok || !r.holds(like.RevokedAt):
			r = Revocation{
				KeysetID: like.KeysetID, JTI: item.JTI, ExpiresAt: r.ExpiresAt,
				RevokedAt: like.RevokedAt, Reason: like.Reason, Caller: like.Caller,
			}
		}
		if later {
			r.ExpiresAt = item.ExpiresAt
		}
		like.Seq++
		r.Seq = like.Seq
		all, changed = append(all, r), append(changed, r)
	}
	return all, changed
}

func revokeDeed(keyset string, changed []Revocation, reason string) deed {
	jtis := make([]string, min(len(changed), auditJTIs))
	for i := range jtis {
		jtis[i] = changed[i].JTI
	}
	target := keyset
	if len(changed) == 1 {
		target += "/" + changed[0].JTI
	}
	return deed{"revocation.create", target, map[string]any{"jtis": jtis, "revoked": len(changed), "reason": reason}}
}

// LiftRevocation makes verifiers accept a token again, and returns its revocation,
// which keeps the reason it was made for. Lifting a lifted one changes nothing.
// ErrNotFound if the token ID is not revoked.
func (d *DB) LiftRevocation(ctx context.Context, keyset uuid.UUID, jti, reason string, by Actor) (r Revocation, err error) {
	if err := checkText(jti, reason); err != nil {
		return r, fmt.Errorf("lifting a revocation: %w", err)
	}
	err = d.changeFeeds(ctx, by, func(tx Tx, now time.Time) (deed, error) {
		feed, err := tx.LockFeed(ctx, keyset)
		if err != nil {
			return deed{}, err
		}
		if r, err = tx.Revocation(ctx, keyset, jti); err != nil || !r.LiftedAt.IsZero() {
			return deed{}, err
		}
		r.Seq, r.LiftedAt = feed.Seq+1, now
		if err := tx.LiftRevocation(ctx, r); err != nil {
			return deed{}, err
		}
		name, err := keysetName(ctx, tx, keyset)
		if err != nil {
			return deed{}, err
		}
		return deed{"revocation.lift", name + "/" + jti, map[string]any{"reason": reason}},
			tx.AdvanceFeed(ctx, keyset, r.Seq)
	})
	if err != nil {
		return r, fmt.Errorf("lifting a revocation: %w", err)
	}
	return r, nil
}

// Revocation returns the revocation of a token ID, also a lifted one and, until
// it is forgotten, one whose token has expired.
func (d *DB) Revocation(ctx context.Context, keyset uuid.UUID, jti string) (r Revocation, err error) {
	if err := checkText(jti); err != nil {
		return r, err
	}
	err = d.engine.View(ctx, func(tx Tx) (err error) {
		r, err = tx.Revocation(ctx, keyset, jti)
		return err
	})
	return r, err
}

// Revocations returns a page of the revocations of a keyset that hold and whose
// tokens expired no longer than [Leeway] ago, by Seq, those after afterSeq; 0
// begins. A page shorter than limit is the last one.
func (d *DB) Revocations(ctx context.Context, keyset uuid.UUID, afterSeq int64, limit int) (page []Revocation, err error) {
	err = d.engine.View(ctx, func(tx Tx) error {
		now, err := tx.Now(ctx)
		if err != nil {
			return err
		}
		step := max(limit, revocationStep)
		for len(page) < limit {
			rows, err := tx.RevocationsAfter(ctx, keyset, afterSeq, false, step)
			if err != nil {
				return err
			}
			for i := range rows {
				if rows[i].holds(now) {
					page = append(page, rows[i])
				}
			}
			if len(rows) < step {
				break
			}
			afterSeq = rows[len(rows)-1].Seq
		}
		page = page[:min(len(page), limit)]
		return nil
	})
	return page, err
}

// revocationStep is how many rows are read at once at least for a page of those
// that hold: among them may be many whose tokens have expired just now.
const revocationStep = 1000
