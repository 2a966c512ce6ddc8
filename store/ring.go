package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
)

// Ring is all that decides who signs and what verifies, at one moment.
type Ring struct {
	Generation int64
	Keysets    []Keyset
	Keys       []SigningKey // in states creating, published, active, retiring
	// Faults has one error for each row that was left out because it does not
	// match its MAC or cannot be understood.
	Faults []error
}

// LoadRing reads the ring.
func (d *DB) LoadRing(ctx context.Context) (Ring, error) {
	var r Ring
	err := d.engine.View(ctx, func(tx Tx) error {
		in, err := tx.Installation(ctx)
		if err != nil {
			return err
		}
		keysets, err := tx.Keysets(ctx)
		if err != nil {
			return err
		}
		keys, err := tx.LiveSigningKeys(ctx)
		if err != nil {
			return err
		}
		r.Generation = in.Generation
		r.Keysets = keep(keysets, &r.Faults, d.seal.openKeyset)
		r.Keys = keep(keys, &r.Faults, d.seal.checkKey)
		return nil
	})
	return r, err
}

// keep returns the rows that pass, as check leaves them, and collects the errors
// of those that do not.
func keep[T any](rows []T, faults *[]error, check func(*T) error) []T {
	kept := rows[:0]
	for _, row := range rows {
		if err := check(&row); err != nil {
			*faults = append(*faults, err)
			continue
		}
		kept = append(kept, row)
	}
	return kept
}

// CreateKeyset creates a keyset and the rows of its first keys, serials 1, 2 …,
// in state creating. ErrExists if the name is taken.
func (d *DB) CreateKeyset(ctx context.Context, ks Keyset, keys []NewKey, by Actor) (Keyset, []SigningKey, error) {
	var made []SigningKey
	err := d.act(ctx, by, func(tx Tx, now time.Time) (deed, error) {
		made = made[:0]
		ks.ID, ks.CreatedAt, ks.UpdatedAt, ks.Version = uuid.New(), now, now, 1
		if err := d.seal.sealKeyset(&ks); err != nil {
			return deed{}, err
		}
		if err := tx.InsertKeyset(ctx, ks); err != nil {
			return deed{}, fmt.Errorf("keyset %s: %w", ks.Name, err)
		}
		for i, nk := range keys {
			k, err := d.insertKey(ctx, tx, ks, i+1, nk, now)
			if err != nil {
				return deed{}, err
			}
			made = append(made, k)
		}
		if _, err := d.changed(ctx, tx); err != nil {
			return deed{}, err
		}
		return deed{"keyset.create", ks.Name, map[string]any{
			"profile": ks.Profile, "algorithm": ks.Algorithm, "backend": ks.Backend,
			"distribution": ks.Distribution, "policy": ks.Policy,
		}}, nil
	})
	return ks, made, err
}

// insertKey writes the row of a key before the key is made, which is the commit
// point of a rotation: from here on the key's label is known, and whatever
// becomes of the process, the key can be found by it.
func (d *DB) insertKey(ctx context.Context, tx Tx, ks Keyset, serial int, nk NewKey, now time.Time) (SigningKey, error) {
	k := SigningKey{
		ID: uuid.New(), KeysetID: ks.ID, Serial: serial, Role: nk.Role, State: StateCreating,
		Algorithm: ks.Algorithm, Backend: ks.BackendFor(nk.Role), Label: nk.Label, CreatedAt: now, Version: 1,
		ActivateAfter: nk.ActivateAfter, Adopted: nk.Adopt, Thumbprint: nk.Thumbprint,
	}
	if im := nk.Import; im != nil {
		k.Imported, k.State, k.Backend, k.Algorithm = true, StateRetiring, "", im.Algorithm
		k.KID, k.Thumbprint, k.PublicKey, k.TrustedUntil = im.KID, im.Thumbprint, im.PublicKey, im.TrustedUntil
		k.Reason, k.PublishedAt, k.RetiredAt = nk.Reason, now, now
	}
	if err := d.seal.sealKey(&k); err != nil {
		return k, err
	}
	if err := tx.InsertSigningKey(ctx, k); err != nil {
		return k, fmt.Errorf("signing key %s/%d: %w", ks.Name, serial, err)
	}
	return k, nil
}

// SigningKeys returns all keys of a keyset, by serial, whatever their state.
func (d *DB) SigningKeys(ctx context.Context, keyset uuid.UUID) (keys []SigningKey, err error) {
	var faults []error
	err = d.engine.View(ctx, func(tx Tx) (err error) {
		keys, err = tx.SigningKeys(ctx, keyset)
		keys = keep(keys, &faults, d.seal.checkKey)
		return err
	})
	return keys, errors.Join(append(faults, err)...)
}

// ClaimSigningKey takes the lease on a key in state creating. The fence it
// returns makes the holder's later changes fail once somebody else has claimed
// the key. ErrConflict if another replica holds the lease or the key is made.
func (d *DB) ClaimSigningKey(ctx context.Context, id, owner uuid.UUID, ttl time.Duration) (fence int64, err error) {
	err = d.engine.Update(ctx, func(tx Tx) (err error) {
		fence, err = tx.ClaimSigningKey(ctx, id, owner, ttl)
		return err
	})
	return fence, err
}

// ReleaseSigningKey gives back a lease, so that another replica may try at once.
func (d *DB) ReleaseSigningKey(ctx context.Context, id uuid.UUID, fence int64) error {
	return d.engine.Update(ctx, func(tx Tx) error { return tx.ReleaseSigningKey(ctx, id, fence) })
}

// PublishSigningKey says that a key exists: creating becomes published.
func (d *DB) PublishSigningKey(ctx context.Context, id uuid.UUID, fence int64, m Made, by Actor) (SigningKey, error) {
	return d.changeKey(ctx, id, fence, StatePublished, by, map[string]any{"kid": m.KID}, func(k *SigningKey) {
		k.Ref, k.KID, k.Thumbprint, k.PublicKey, k.Attestation = m.Ref, m.KID, m.Thumbprint, m.PublicKey, m.Attestation
	})
}

// keysetName returns what the audit calls a keyset.
func keysetName(ctx context.Context, tx Tx, id uuid.UUID) (string, error) {
	keysets, err := tx.Keysets(ctx)
	for _, ks := range keysets {
		if ks.ID == id {
			return ks.Name, err
		}
	}
	return id.String(), err
}

// changeKey moves a key to another state, with what that changes in its row,
// its audit event and the ring's new generation in one transaction.
func (d *DB) changeKey(ctx context.Context, id uuid.UUID, fence int64, to State, by Actor, detail map[string]any, set func(*SigningKey)) (SigningKey, error) {
	var k SigningKey
	err := d.act(ctx, by, func(tx Tx, _ time.Time) (_ deed, err error) {
		if k, err = tx.LockSigningKey(ctx, id); err != nil {
			return deed{}, err
		}
		if err := d.seal.checkKey(&k); err != nil {
			return deed{}, err
		}
		was := k.State
		// Behind the gate, so that waits which are counted from this time do not
		// begin before the change can be seen.
		now, err := tx.Now(ctx)
		if err != nil {
			return deed{}, err
		}
		if err := k.moveTo(to, now); err != nil {
			return deed{}, err
		}
		set(&k)
		k.Version++
		if err := d.seal.sealKey(&k); err != nil {
			return deed{}, err
		}
		if err := tx.UpdateSigningKey(ctx, k, was, fence); err != nil {
			return deed{}, err
		}
		if _, err = d.changed(ctx, tx); err != nil {
			return deed{}, err
		}
		name, err := keysetName(ctx, tx, k.KeysetID)
		return deed{"signing-key." + string(to), target(name, k.Serial), detail}, err
	})
	if err != nil {
		return k, fmt.Errorf("signing key to %s: %w", to, err)
	}
	return k, nil
}
