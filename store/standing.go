package store

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"
)

// Standing is what the database knows of a token ID.
type Standing int

// The standings.
const (
	StandingUnknown Standing = iota // no such token, or it was forgotten
	StandingRevoked
	StandingLifted  // it was revoked, and that was taken back
	StandingExpired // longer than [Leeway] ago
	StandingIssued  // valid, and never revoked
)

// Standings returns what is known of token IDs of a keyset, in their order.
func (d *DB) Standings(ctx context.Context, keyset uuid.UUID, jtis []string) ([]Standing, error) {
	for _, jti := range jtis {
		if err := checkText(jti); err != nil {
			return nil, err
		}
	}
	standings := make([]Standing, len(jtis))
	err := d.engine.View(ctx, func(tx Tx) error {
		now, err := tx.Now(ctx)
		if err != nil {
			return err
		}
		rows, err := tx.RevocationsOf(ctx, keyset, jtis)
		if err != nil {
			return err
		}
		revoked := make(map[string]Standing, len(rows))
		for _, r := range rows {
			revoked[r.JTI] = r.standing(now)
		}
		for i, jti := range jtis {
			if s, ok := revoked[jti]; ok {
				standings[i] = s
			} else if standings[i], err = issuanceStanding(ctx, tx, keyset, jti, now); err != nil {
				return err
			}
		}
		return nil
	})
	return standings, err
}

func (r *Revocation) standing(now time.Time) Standing {
	switch {
	case !acceptable(r.ExpiresAt, now):
		return StandingExpired
	case !r.LiftedAt.IsZero():
		return StandingLifted
	default:
		return StandingRevoked
	}
}

// issuanceStanding asks the ledger. Tokens carry their IDs in one form; what is
// written in another is not theirs.
func issuanceStanding(ctx context.Context, tx Tx, keyset uuid.UUID, jti string, now time.Time) (Standing, error) {
	id, err := uuid.Parse(jti)
	if err != nil || id.String() != jti {
		return StandingUnknown, nil //nolint:nilerr // zonemint's are UUIDs, other issuers' may be anything
	}
	row, err := tx.Issuance(ctx, id)
	switch {
	case errors.Is(err, ErrNotFound) || err == nil && row.KeysetID != keyset:
		return StandingUnknown, nil
	case err != nil:
		return StandingUnknown, err
	case !acceptable(row.ExpiresAt, now):
		return StandingExpired, nil
	default:
		return StandingIssued, nil
	}
}
