package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
)

// Lifecycle is all that decides about the keys of a keyset, read at one moment:
// their state, the time, and the evidence of who knows which of them.
type Lifecycle struct {
	Now        time.Time // the database's clock
	Generation int64     // of the ring
	Keyset     Keyset
	Keys       []SigningKey // creating, published, active, retiring; by serial
	Series     Series
	Replicas   []ReplicaLease
	Acks       []Acknowledgement // of this keyset's consumers
	// Faults has an error for each row that does not match its MAC. While there
	// is one, nothing can be decided: what is missing may be the active key.
	Faults []error
}

// Key returns the live key with that serial.
func (l *Lifecycle) Key(serial int) (SigningKey, bool) {
	i := slices.IndexFunc(l.Keys, func(k SigningKey) bool { return k.Serial == serial })
	if i < 0 {
		return SigningKey{}, false
	}
	return l.Keys[i], true
}

// Active returns the key that signs in that role.
func (l *Lifecycle) Active(role Role) (SigningKey, bool) {
	i := slices.IndexFunc(l.Keys, func(k SigningKey) bool { return k.State == StateActive && k.Role == role })
	if i < 0 {
		return SigningKey{}, false
	}
	return l.Keys[i], true
}

// Lifecycles returns the lifecycle of every keyset whose row is good, and an
// error for each whose is not.
func (d *DB) Lifecycles(ctx context.Context) (all []Lifecycle, faults []error, err error) {
	err = d.engine.View(ctx, func(tx Tx) error {
		all, faults = nil, nil
		common, err := evidence(ctx, tx)
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
		series, err := tx.AllSeries(ctx)
		if err != nil {
			return err
		}
		for _, ks := range keep(keysets, &faults, d.seal.openKeyset) {
			l := common
			l.Keyset, l.Series = ks, series[ks.ID]
			d.take(&l, keys)
			all = append(all, l)
		}
		return nil
	})
	return all, faults, err
}

// evidence reads what the lifecycles of all keysets share.
func evidence(ctx context.Context, tx Tx) (l Lifecycle, err error) {
	if l.Acks, err = tx.Acknowledgements(ctx); err != nil {
		return l, err
	}
	if l.Replicas, err = tx.Replicas(ctx); err != nil {
		return l, err
	}
	in, err := tx.Installation(ctx)
	if err != nil {
		return l, err
	}
	l.Generation = in.Generation
	l.Now, err = tx.Now(ctx)
	return l, err
}

// take picks what belongs to the keyset of l.
func (d *DB) take(l *Lifecycle, keys []SigningKey) {
	for _, k := range keys {
		if k.KeysetID != l.Keyset.ID {
			continue
		}
		if err := d.seal.checkKey(&k); err != nil {
			l.Faults = append(l.Faults, err)
			continue
		}
		l.Keys = append(l.Keys, k)
	}
	l.Acks = slices.DeleteFunc(slices.Clone(l.Acks), func(a Acknowledgement) bool { return a.KeysetID != l.Keyset.ID })
}

// Change is what is to become of a keyset and its keys. The zero Change is none.
type Change struct {
	// Action and Detail are what the audit says of the whole, beside what it
	// says of each key. An empty action adds nothing.
	Action string
	Detail map[string]any
	// Keyset, if it is not nil, has the new policy.
	Keyset *Keyset
	Moves  []Move   // in this order
	New    []NewKey // the serials after the last one, after the moves
}

// takesAway says whether the change does nothing but end keys.
func (c *Change) takesAway() bool {
	return c.Keyset == nil && len(c.New) == 0 && !slices.ContainsFunc(c.Moves, func(m Move) bool { return m.To == "" || m.To.live() })
}

func (c *Change) empty() bool { return c.Keyset == nil && len(c.Moves) == 0 && len(c.New) == 0 }

// Move changes one key.
type Move struct {
	Serial int
	To     State // empty: the state stays
	Reason string
	// ActivateAfter, if it is not zero, asks for the key to take over from then
	// on.
	ActivateAfter time.Time
}

// ChangeKeys lets decide look at a keyset and does what it says, in one
// transaction that no other ChangeKeys of the keyset comes between. If decide
// fails, or finds nothing to do, nothing is written. ErrTampered if a row of the
// keyset does not match its MAC, unless the change only takes keys out of use: a
// damaged row must not protect a stolen key. ErrConflict if the state machine or another
// transaction is in the way.
//
// The keys are locked one by one as they are moved, so that batches of tokens are
// held up for the length of the commit and not while decide thinks.
func (d *DB) ChangeKeys(ctx context.Context, keyset uuid.UUID, by Actor, decide func(*Lifecycle) (Change, error)) (after Lifecycle, err error) {
	err = d.acts(ctx, by, func(tx Tx, _ time.Time) ([]deed, error) {
		l, err := d.lockLifecycle(ctx, tx, keyset)
		if err != nil {
			return nil, err
		}
		c, err := decide(&l)
		if err != nil {
			return nil, err
		}
		if len(l.Faults) > 0 && !c.takesAway() {
			return nil, errors.Join(l.Faults...)
		}
		if after = l; c.empty() {
			return nil, nil
		}
		done, err := d.apply(ctx, tx, &l, c)
		after = l
		return done, err
	})
	if err != nil {
		return after, fmt.Errorf("keys of keyset %s: %w", keyset, err)
	}
	return after, nil
}

func (d *DB) lockLifecycle(ctx context.Context, tx Tx, keyset uuid.UUID) (Lifecycle, error) {
	ks, err := tx.LockKeyset(ctx, keyset)
	if err != nil {
		return Lifecycle{}, err
	}
	if err := d.seal.openKeyset(&ks); err != nil {
		return Lifecycle{}, err
	}
	// The keys come before the evidence: what replicas acknowledge after a key was
	// read is about that key, but not the other way round.
	keys, err := tx.LiveKeysOf(ctx, keyset)
	if err != nil {
		return Lifecycle{}, err
	}
	series, err := tx.SeriesOf(ctx, keyset)
	if err != nil {
		return Lifecycle{}, err
	}
	l, err := evidence(ctx, tx)
	l.Keyset, l.Series = ks, series
	d.take(&l, keys)
	return l, err
}

// apply writes a change and brings l up to date with it.
func (d *DB) apply(ctx context.Context, tx Tx, l *Lifecycle, c Change) ([]deed, error) {
	var done []deed
	if c.Action != "" {
		done = append(done, deed{c.Action, l.Keyset.Name, c.Detail})
	}
	if c.Keyset != nil {
		if err := d.updateKeyset(ctx, tx, l, *c.Keyset); err != nil {
			return nil, err
		}
	}
	for _, m := range c.Moves {
		act, err := d.move(ctx, tx, l, m)
		if err != nil {
			return nil, err
		}
		done = append(done, act)
	}
	for _, nk := range c.New {
		act, err := d.begin(ctx, tx, l, nk)
		if err != nil {
			return nil, err
		}
		done = append(done, act)
	}
	var err error
	l.Generation, err = d.changed(ctx, tx)
	return done, err
}

func (d *DB) updateKeyset(ctx context.Context, tx Tx, l *Lifecycle, ks Keyset) error {
	// The row keeps what a keyset is; with a MAC over anything else nobody could
	// read it again.
	ks.ID, ks.Name, ks.Profile, ks.CreatedAt = l.Keyset.ID, l.Keyset.Name, l.Keyset.Profile, l.Keyset.CreatedAt
	ks.UpdatedAt, ks.Version = l.Now, l.Keyset.Version+1
	if err := d.seal.sealKeyset(&ks); err != nil {
		return err
	}
	if err := tx.UpdateKeyset(ctx, ks); err != nil {
		return err
	}
	l.Keyset = ks
	return nil
}

func (d *DB) move(ctx context.Context, tx Tx, l *Lifecycle, m Move) (deed, error) {
	i := slices.IndexFunc(l.Keys, func(k SigningKey) bool { return k.Serial == m.Serial })
	if i < 0 {
		return deed{}, fmt.Errorf("serial %d has ended or does not exist: %w", m.Serial, ErrConflict)
	}
	k, err := d.lockKey(ctx, tx, l.Keys[i])
	if err != nil {
		return deed{}, err
	}
	was := k.State
	action, detail := "schedule", map[string]any{"kid": k.KID}
	if m.To != "" {
		if err := k.moveTo(m.To, l.Now); err != nil {
			return deed{}, err
		}
		action = string(m.To)
	}
	if m.Reason != "" {
		k.Reason, detail["reason"] = m.Reason, m.Reason
	}
	if !m.ActivateAfter.IsZero() {
		k.ActivateAfter, detail["activate_after"] = m.ActivateAfter, m.ActivateAfter
	}
	if err := d.writeKey(ctx, tx, &k, was, 0); err != nil {
		if errors.Is(err, ErrExists) {
			err = fmt.Errorf("the keyset has an active key of that role: %w", ErrConflict)
		}
		return deed{}, err
	}
	l.Keys[i], l.Series = k, l.Series.With(k)
	if !k.State.live() {
		l.Keys = slices.Delete(l.Keys, i, i+1)
	}
	return deed{"signing-key." + action, target(l.Keyset.Name, k.Serial), detail}, nil
}

// lockKey locks a key for a change, and reads what batches may have raised in it
// since it was looked at.
func (d *DB) lockKey(ctx context.Context, tx Tx, seen SigningKey) (SigningKey, error) {
	k, err := tx.LockSigningKey(ctx, seen.ID)
	if err != nil {
		return k, err
	}
	if err := d.seal.checkKey(&k); err != nil {
		return k, err
	}
	if k.Version != seen.Version {
		return k, fmt.Errorf("serial %d: %w", k.Serial, ErrConflict)
	}
	return k, nil
}

// writeKey seals a key and writes it over the row that was in state was.
func (d *DB) writeKey(ctx context.Context, tx Tx, k *SigningKey, was State, fence int64) error {
	k.Version++
	if err := d.seal.sealKey(k); err != nil {
		return err
	}
	return tx.UpdateSigningKey(ctx, *k, was, fence)
}

func (d *DB) begin(ctx context.Context, tx Tx, l *Lifecycle, nk NewKey) (deed, error) {
	k, err := d.insertKey(ctx, tx, l.Keyset, l.Series.LastSerial+1, nk, l.Now)
	if err != nil {
		return deed{}, err
	}
	l.Series.LastSerial = k.Serial
	l.Keys = append(l.Keys, k)
	detail := map[string]any{"backend": k.Backend, "algorithm": k.Algorithm, "reason": nk.Reason}
	if k.Adopted != "" {
		detail["adopted"] = k.Adopted
	}
	if k.Imported {
		detail = map[string]any{"kid": k.KID, "algorithm": k.Algorithm, "trusted_until": k.TrustedUntil, "reason": nk.Reason}
		return deed{"signing-key.import", target(l.Keyset.Name, k.Serial), detail}, nil
	}
	return deed{"signing-key.creating", target(l.Keyset.Name, k.Serial), detail}, nil
}

func target(keyset string, serial int) string { return fmt.Sprintf("%s/%d", keyset, serial) }

// SigningKey returns one key of a keyset, whatever its state.
func (d *DB) SigningKey(ctx context.Context, keyset uuid.UUID, serial int) (k SigningKey, err error) {
	err = d.engine.View(ctx, func(tx Tx) (err error) {
		if k, err = tx.SigningKey(ctx, keyset, serial); err != nil {
			return err
		}
		return d.seal.checkKey(&k)
	})
	return k, err
}

// Destroyed remembers that the private key of an ended serial is gone from its
// backend. For backends whose references are the keys themselves, this is what
// destroys it: the reference is erased.
func (d *DB) Destroyed(ctx context.Context, keyset Keyset, serial int, reason string, by Actor) (k SigningKey, err error) {
	err = d.endKey(ctx, keyset, serial, &k, by, func(now time.Time) (string, map[string]any) {
		k.DestroyedAt, k.Ref = now, nil
		return "signing-key.destroyed", map[string]any{"kid": k.KID, "reason": reason}
	})
	return k, err
}

// Destroying remembers, before a backend is asked to destroy the private key of an
// ended serial, that somebody wants it.
func (d *DB) Destroying(ctx context.Context, keyset Keyset, serial int, reason string, by Actor) (k SigningKey, err error) {
	err = d.endKey(ctx, keyset, serial, &k, by, func(now time.Time) (string, map[string]any) {
		if k.DestroyAskedAt.IsZero() {
			k.DestroyAskedAt = now
		}
		return "signing-key.destroy", map[string]any{"kid": k.KID, "label": k.Label, "backend": k.Backend, "reason": reason}
	})
	return k, err
}

// endKey changes a key that has ended and is not destroyed, if set changes it.
func (d *DB) endKey(ctx context.Context, keyset Keyset, serial int, k *SigningKey, by Actor, set func(time.Time) (string, map[string]any)) error {
	return d.act(ctx, by, func(tx Tx, now time.Time) (_ deed, err error) {
		if *k, err = tx.SigningKey(ctx, keyset.ID, serial); err != nil {
			return deed{}, err
		}
		if err := d.seal.checkKey(k); err != nil {
			return deed{}, err
		}
		if k.State.live() {
			return deed{}, fmt.Errorf("serial %d is %s: %w", serial, k.State, ErrConflict)
		}
		if !k.DestroyedAt.IsZero() {
			return deed{}, nil
		}
		action, detail := set(now)
		return deed{action, target(keyset.Name, serial), detail}, d.writeKey(ctx, tx, k, k.State, 0)
	})
}

// Acknowledge remembers what a consumer of a keyset has, in place of what it had
// before. ErrNotFound if the keyset does not name that consumer.
func (d *DB) Acknowledge(ctx context.Context, keyset uuid.UUID, consumer string, kids []string, by Actor) (Lifecycle, error) {
	var l Lifecycle
	err := d.act(ctx, by, func(tx Tx, now time.Time) (_ deed, err error) {
		if l, err = d.lockLifecycle(ctx, tx, keyset); err != nil {
			return deed{}, err
		}
		if !slices.Contains(l.Keyset.Policy.Consumers, consumer) {
			return deed{}, fmt.Errorf("consumer %q: %w", consumer, ErrNotFound)
		}
		i := slices.IndexFunc(l.Acks, func(a Acknowledgement) bool { return a.Consumer == consumer })
		news := i < 0 || !slices.Equal(slices.Sorted(slices.Values(l.Acks[i].KIDs)), slices.Sorted(slices.Values(kids)))
		a := Acknowledgement{KeysetID: keyset, Consumer: consumer, KIDs: kids, Generation: l.Generation, Caller: by.Name, AckedAt: now}
		if err := tx.PutAcknowledgement(ctx, a); err != nil {
			return deed{}, err
		}
		if !news {
			return deed{}, nil // said again, as bridges do all the time
		}
		// Replicas may have waited for it.
		if err := tx.Notify(ctx, TopicRing); err != nil {
			return deed{}, err
		}
		return deed{"keyset.acknowledge", l.Keyset.Name, map[string]any{"consumer": consumer, "kids": kids}}, nil
	})
	return l, err
}
