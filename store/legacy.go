package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
)

// LegacyKind says which of the old HS256 tokens a key is for. No key serves two.
type LegacyKind string

// The kinds.
const (
	LegacyControlPlane LegacyKind = "control-plane"
	LegacyZoneIngress  LegacyKind = "zone-ingress"
)

// LegacyState is where the key of a kind is in its life.
type LegacyState string

// The states of a legacy key. Removed is for ever: neither the serial nor the
// secret comes back.
//
//	active ──> retiring ──> removed
//	   └──────────────────────┘
const (
	LegacyActive   LegacyState = "active"   // issues and verifies
	LegacyRetiring LegacyState = "retiring" // verifies
	LegacyRemoved  LegacyState = "removed"
)

// LegacyKey is one serial of a kind. It is a shared secret and no key pair, and
// apart from signing keys for that reason.
type LegacyKey struct {
	ID     uuid.UUID
	Kind   LegacyKind
	Serial int
	State  LegacyState
	// Secret is encrypted by whoever made the row; empty once the key was removed.
	Secret []byte
	// Digest is of the secret. It tells that a secret was in use before, and stays
	// when the secret goes.
	Digest []byte
	// Thumbprint is that of the public half, as in SigningKey, if the secret has the
	// form of a private key.
	Thumbprint string
	Imported   bool
	CreatedBy  string
	CreatedAt  time.Time
	RetiredAt  time.Time
	RemovedAt  time.Time
	Version    int64
	MAC        []byte
}

// Trusted says whether tokens of the key are good.
func (k *LegacyKey) Trusted() bool { return k.State == LegacyActive || k.State == LegacyRetiring }

func (k *LegacyKey) encoding() *encoding {
	return encodingOf("legacy_keys").id(k.ID).text(string(k.Kind)).num(int64(k.Serial)).text(string(k.State)).
		bytes(k.Secret).bytes(k.Digest).text(k.Thumbprint).flag(k.Imported).text(k.CreatedBy).
		time(k.CreatedAt).time(k.RetiredAt).time(k.RemovedAt).num(k.Version)
}

func (s sealer) checkLegacyKey(k *LegacyKey) error {
	return s.check(k.encoding(), k.MAC, fmt.Sprintf("legacy key %s/%d", k.Kind, k.Serial))
}

// LegacyKeys are the keys of a kind at one moment, by serial.
type LegacyKeys struct {
	Kind LegacyKind
	Keys []LegacyKey
	// Last is the highest serial there ever was, of rows that were tampered with
	// too; 0 if there was none.
	Last int
	// Faults are rows that were left out because they do not match their MAC.
	Faults []error
}

// Active returns the key that issues.
func (l *LegacyKeys) Active() (LegacyKey, bool) {
	return l.find(func(k LegacyKey) bool { return k.State == LegacyActive })
}

// Key returns the key with a serial, whatever its state.
func (l *LegacyKeys) Key(serial int) (LegacyKey, bool) {
	return l.find(func(k LegacyKey) bool { return k.Serial == serial })
}

// Trusted returns the keys whose tokens are good.
func (l *LegacyKeys) Trusted() []LegacyKey {
	return slices.DeleteFunc(slices.Clone(l.Keys), func(k LegacyKey) bool { return !k.Trusted() })
}

func (l *LegacyKeys) find(is func(LegacyKey) bool) (LegacyKey, bool) {
	if i := slices.IndexFunc(l.Keys, is); i >= 0 {
		return l.Keys[i], true
	}
	return LegacyKey{}, false
}

// NewLegacyKey is a key to be added.
type NewLegacyKey struct {
	Serial     int         // must be free, and have been so for ever
	State      LegacyState // active or retiring
	Secret     []byte      // encrypted
	Digest     []byte
	Thumbprint string
	Imported   bool
}

// LegacyAct is what is to be done with the keys of a kind, and what the audit says
// of it. The keys need not change: issuing a token and exporting a key are acts too.
type LegacyAct struct {
	Retire, Remove int // serials; 0 is none. Both come before Add
	Add            *NewLegacyKey

	Action string // "legacy-key.rotate"; empty: nothing is done
	Serial int    // that the audit names
	Detail map[string]any
}

// InstallationID is the ID of the database, random and its own. What is encrypted
// for one database is bound to it.
func (d *DB) InstallationID() uuid.UUID { return d.seal.installation }

// LegacyKeys returns the keys of a kind.
func (d *DB) LegacyKeys(ctx context.Context, kind LegacyKind) (l LegacyKeys, err error) {
	err = d.engine.View(ctx, func(tx Tx) error {
		keys, err := tx.LegacyKeys(ctx, kind)
		l = d.legacyKeys(kind, keys)
		return err
	})
	return l, err
}

func (d *DB) legacyKeys(kind LegacyKind, rows []LegacyKey) LegacyKeys {
	l := LegacyKeys{Kind: kind}
	for _, k := range rows {
		l.Last = max(l.Last, k.Serial)
	}
	l.Keys = keep(rows, &l.Faults, d.seal.checkLegacyKey)
	return l
}

// ActOnLegacyKeys reads the keys of a kind, has decide say what to do, and does it
// with its audit event, all in one transaction. Acts on a kind take turns. What
// decide returns or lets out counts for nothing until the method has returned nil.
// ErrExists if the serial or the secret of a key that is added was in use before;
// ErrTampered if a key is to be added beside a row that does not match its MAC.
func (d *DB) ActOnLegacyKeys(ctx context.Context, kind LegacyKind, by Actor, decide func(*LegacyKeys) (LegacyAct, error)) (l LegacyKeys, err error) {
	err = d.act(ctx, by, func(tx Tx, _ time.Time) (deed, error) {
		rows, err := tx.LockLegacyKeys(ctx, kind)
		if err != nil {
			return deed{}, err
		}
		l = d.legacyKeys(kind, rows)
		a, err := decide(&l)
		if err != nil || a.Action == "" {
			return deed{}, err
		}
		if err := d.changeLegacyKeys(ctx, tx, &l, a, by); err != nil {
			return deed{}, err
		}
		return deed{a.Action, target(string(kind), a.Serial), a.Detail}, nil
	})
	if err != nil {
		return l, fmt.Errorf("keys of %s tokens: %w", kind, err)
	}
	return l, nil
}

func (d *DB) changeLegacyKeys(ctx context.Context, tx Tx, l *LegacyKeys, a LegacyAct, by Actor) error {
	now, err := tx.Now(ctx)
	if err != nil {
		return err
	}
	for _, move := range []struct {
		serial int
		to     LegacyState
	}{{a.Retire, LegacyRetiring}, {a.Remove, LegacyRemoved}} {
		if move.serial == 0 {
			continue
		}
		if err := d.moveLegacyKey(ctx, tx, l, move.serial, move.to, now); err != nil {
			return err
		}
	}
	if a.Add == nil {
		return nil
	}
	if len(l.Faults) > 0 {
		return errors.Join(l.Faults...)
	}
	return d.addLegacyKey(ctx, tx, l, *a.Add, by, now)
}

func (d *DB) moveLegacyKey(ctx context.Context, tx Tx, l *LegacyKeys, serial int, to LegacyState, now time.Time) error {
	i := slices.IndexFunc(l.Keys, func(k LegacyKey) bool { return k.Serial == serial })
	if i < 0 {
		return fmt.Errorf("serial %d: %w", serial, ErrNotFound)
	}
	k := &l.Keys[i]
	was := k.State
	switch {
	case was == LegacyActive && to == LegacyRetiring:
		k.RetiredAt = now
	case k.Trusted() && to == LegacyRemoved:
		k.RemovedAt, k.Secret = now, []byte{}
	default:
		return fmt.Errorf("serial %d is %s and cannot become %s: %w", serial, was, to, ErrConflict)
	}
	k.State = to
	k.Version++
	mac, err := d.seal.seal(k.encoding())
	if err != nil {
		return err
	}
	k.MAC = mac
	return tx.UpdateLegacyKey(ctx, *k, was)
}

func (d *DB) addLegacyKey(ctx context.Context, tx Tx, l *LegacyKeys, n NewLegacyKey, by Actor, now time.Time) error {
	k := LegacyKey{
		ID: uuid.New(), Kind: l.Kind, Serial: n.Serial, State: n.State, Secret: n.Secret, Digest: n.Digest,
		Thumbprint: n.Thumbprint, Imported: n.Imported, CreatedBy: by.Name, CreatedAt: now, Version: 1,
	}
	if k.State == LegacyRetiring {
		k.RetiredAt = now
	}
	var err error
	if k.MAC, err = d.seal.seal(k.encoding()); err != nil {
		return err
	}
	if err := tx.InsertLegacyKey(ctx, k); err != nil {
		return fmt.Errorf("serial %d: %w", k.Serial, err)
	}
	l.Keys = append(l.Keys, k)
	l.Last = max(l.Last, k.Serial)
	slices.SortFunc(l.Keys, func(a, b LegacyKey) int { return a.Serial - b.Serial })
	return nil
}
