package rotation

import (
	"slices"

	"github.com/zonemint/zonemint/store"
)

// Apply returns what the steps that are due change in the database. Making keys
// is not part of it: that takes a backend. Label returns a fresh random label.
func Apply(l *store.Lifecycle, r Rules, label func() string) store.Change {
	var c store.Change
	for _, s := range Steps(l, r) {
		if !s.Due(l.Now) {
			continue
		}
		switch s.Kind {
		case Begin:
			c.New = append(c.New, store.NewKey{Role: s.role, Label: label(), Reason: s.Reason, ActivateAfter: s.activateAfter})
		case Activate:
			t := Takeover(l, s.Serial, s.Reason, label)
			c.Moves = append(c.Moves, t.Moves...)
			if !slices.ContainsFunc(c.New, func(nk store.NewKey) bool { return nk.Role == s.role }) {
				c.New = append(c.New, t.New...)
			}
		case Abandon:
			c.Moves = append(c.Moves, store.Move{Serial: s.Serial, To: store.StateAbandoned, Reason: s.Reason})
		case GiveUp:
			c.Moves = append(c.Moves, store.Move{Serial: s.Serial, To: store.StateFailed, Reason: s.Reason})
		case Retire:
			c.Moves = append(c.Moves, store.Move{Serial: s.Serial, To: store.StateRetiring, Reason: s.Reason})
		case Remove:
			c.Moves = append(c.Moves, store.Move{Serial: s.Serial, To: store.StateRemoved, Reason: s.Reason})
		case Make:
		}
	}
	return c
}

// Heir returns the serial that is the successor of k once k signs, and whether its
// row exists already.
func Heir(l *store.Lifecycle, k store.SigningKey) (serial int, exists bool) {
	for _, h := range heirs(l, k.Role) {
		if h.Serial != k.Serial && fits(l, h) {
			return h.Serial, true
		}
	}
	return l.Series.LastSerial + 1, false
}

// Takeover returns the change by which a key begins to sign: the one that signs
// now retires, and the next successor is begun, all in one transaction, so that
// the keyset is never without a key and never without a plan.
func Takeover(l *store.Lifecycle, serial int, reason string, label func() string) store.Change {
	var c store.Change
	k, _ := l.Key(serial)
	if active, ok := l.Active(k.Role); ok {
		c.Moves = append(c.Moves, store.Move{Serial: active.Serial, To: store.StateRetiring, Reason: reason})
	}
	c.Moves = append(c.Moves, store.Move{Serial: serial, To: store.StateActive, Reason: reason})
	if _, ok := Heir(l, k); !ok {
		c.New = append(c.New, store.NewKey{
			Role: k.Role, Label: label(), Reason: "every keyset has a published successor",
		})
	}
	return c
}
