package storetest

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/zonemint/zonemint/store"
)

// testAudit compares pages of the audit with what filters mean.
func testAudit(t *testing.T, h Harness) {
	w := newWorld(t, h)
	ids := make([]uuid.UUID, 40)
	for i := range ids {
		ids[i] = newJTI(t, time.Now())
	}
	slices.SortFunc(ids, func(a, b uuid.UUID) int { return strings.Compare(b.String(), a.String()) })
	actions := []string{"keyset.create", "keyset.update", "key_set", "signing-key.active", "%"}
	events := make([]store.AuditEvent, len(ids))
	noErr(t, w.Engine.Update(t.Context(), func(tx store.Tx) error {
		for i, id := range ids {
			events[i] = store.AuditEvent{
				ID: id, At: hence(-time.Duration(i) * time.Minute), Actor: []string{"a", "b"}[i%2],
				Action: actions[rand.N(len(actions))], Target: "x", Detail: "{}", RequestID: "r",
			}
			if err := tx.InsertAuditEvent(t.Context(), events[i]); err != nil {
				return err
			}
		}
		return nil
	}))
	for _, f := range []store.AuditFilter{
		{}, {ActionPrefix: "keyset."}, {ActionPrefix: "key"}, {ActionPrefix: "%"}, {ActionPrefix: "none"}, {Actor: "a"}, {Actor: "A"},
		{After: events[20].At}, {Before: events[20].At}, {After: events[30].At, Before: events[5].At, Actor: "b", ActionPrefix: "key"},
	} {
		var got []store.AuditEvent
		for before := uuid.Max; ; before = got[len(got)-1].ID {
			page, err := w.db.AuditEvents(t.Context(), f, before, 7)
			noErr(t, err)
			if len(page) == 0 {
				break
			}
			got = append(got, page...)
		}
		want := slices.DeleteFunc(slices.Clone(events), func(e store.AuditEvent) bool {
			return !strings.HasPrefix(e.Action, f.ActionPrefix) || f.Actor != "" && e.Actor != f.Actor ||
				!f.After.IsZero() && e.At.Before(f.After) || !f.Before.IsZero() && !e.At.Before(f.Before)
		})
		if !slices.Equal(got, want) {
			t.Errorf("%+v: %d events, want %d", f, len(got), len(want))
		}
	}
	_, err := w.db.AuditEvents(t.Context(), store.AuditFilter{Actor: "\xff"}, uuid.Max, 1)
	wantErr(t, err, store.ErrRejected)
}
