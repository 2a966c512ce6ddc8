package rotation

import (
	"slices"

	"github.com/zonemint/zonemint/store"
)

// Preview returns what a keyset looks like after a change.
func Preview(l *store.Lifecycle, c store.Change) store.Lifecycle {
	after := *l
	after.Keys = slices.Clone(l.Keys)
	if c.Keyset != nil {
		after.Keyset = *c.Keyset
	}
	for _, m := range c.Moves {
		i := slices.IndexFunc(after.Keys, func(k store.SigningKey) bool { return k.Serial == m.Serial })
		if i < 0 {
			continue
		}
		k := &after.Keys[i]
		if m.To != "" {
			k.State = m.To
		}
		if !m.ActivateAfter.IsZero() {
			k.ActivateAfter = m.ActivateAfter
		}
		switch m.To {
		case store.StateActive:
			k.ActivatedAt = l.Now
		case store.StateRetiring:
			k.RetiredAt = l.Now
		default:
		}
		after.Series = after.Series.With(*k)
	}
	for _, nk := range c.New {
		after.Series.LastSerial++
		after.Keys = append(after.Keys, store.SigningKey{
			Serial: after.Series.LastSerial, Role: nk.Role, State: store.StateCreating, ActivateAfter: nk.ActivateAfter,
			Backend: after.Keyset.BackendFor(nk.Role), Algorithm: after.Keyset.Algorithm, Reason: nk.Reason,
		})
	}
	after.Keys = slices.DeleteFunc(after.Keys, func(k store.SigningKey) bool {
		return k.State != store.StateCreating && !k.State.Verifies()
	})
	return after
}
