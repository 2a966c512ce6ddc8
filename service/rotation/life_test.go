package rotation_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/zonemint/zonemint/service/rotation"
	"github.com/zonemint/zonemint/store"
)

const (
	skew  = time.Minute
	lease = 30 * time.Second
	cache = 5 * time.Minute
	wait  = lease + cache + skew // until no verifier can have an older set
	day   = 24 * time.Hour
)

var (
	noon  = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	rules = rotation.Rules{Skew: skew}
)

// edit changes something in a lifecycle.
type edit func(*store.Lifecycle)

// settled is a keyset at noon in which nothing is to be done: serial 2 has signed
// since yesterday, serial 3 is its successor, and one replica serves both.
func settled(edits ...edit) *store.Lifecycle {
	l := &store.Lifecycle{
		Now: noon, Generation: 10,
		Keyset: store.Keyset{
			ID: uuid.UUID{1}, Name: "zone", Algorithm: "ES256", Backend: "local", Distribution: store.DistributionJWKS,
			CreatedAt: noon.Add(-3 * day),
		},
		Keys:     []store.SigningKey{key(2, store.StateActive), key(3, store.StatePublished)},
		Series:   store.Series{LastSerial: 3, SignedSince: noon.Add(-30 * day)},
		Replicas: []store.ReplicaLease{replica("a", 10, lease)},
	}
	for _, e := range edits {
		e(l)
	}
	return l
}

// key is a key that came to its state a day before noon.
func key(serial int, state store.State) store.SigningKey {
	k := store.SigningKey{
		ID: uuid.UUID{2, byte(serial)}, Serial: serial, Role: store.RolePrimary, State: state, Algorithm: "ES256", Backend: "local",
		KID: fmt.Sprintf("zone-%d-x", serial), CreatedAt: noon.Add(-3 * day), PublishedAt: noon.Add(-day),
	}
	switch state {
	case store.StateCreating:
		k.KID, k.PublishedAt = "", time.Time{}
	case store.StateActive, store.StateRetiring:
		k.PublishedAt, k.ActivatedAt, k.LastExpiry = noon.Add(-2*day), noon.Add(-day), noon.Add(time.Hour)
	default:
	}
	if state == store.StateRetiring {
		k.RetiredAt = noon.Add(-time.Hour)
	}
	return k
}

// replica is one whose lease lasts that much longer than noon.
func replica(name string, generation int64, left time.Duration) store.ReplicaLease {
	return store.ReplicaLease{
		Replica:    store.Replica{ID: uuid.UUID{3, name[0]}, Name: name, Generation: generation, CacheFor: cache, LeaseTTL: lease},
		LeaseUntil: noon.Add(left),
	}
}

func keys(all ...store.SigningKey) edit {
	return func(l *store.Lifecycle) { l.Keys = all }
}

// with adds a key, changed by some edits of it.
func with(k store.SigningKey, change func(*store.SigningKey)) edit {
	return func(l *store.Lifecycle) {
		change(&k)
		l.Keys = append(l.Keys, k)
		l.Series.LastSerial = max(l.Series.LastSerial, k.Serial)
	}
}

// of changes a key that is there.
func of(serial int, change func(*store.SigningKey)) edit {
	return func(l *store.Lifecycle) {
		for i := range l.Keys {
			if l.Keys[i].Serial == serial {
				change(&l.Keys[i])
			}
		}
	}
}

// asked has somebody ask for the rotation an hour ago.
func asked(k *store.SigningKey) { k.ActivateAfter = noon.Add(-time.Hour) }

func asIs(*store.SigningKey) {}

// unsigned makes it a keyset that has never signed.
func unsigned(l *store.Lifecycle) { l.Series.SignedSince = time.Time{} }

// firstSet makes it a keyset that began to sign a minute ago.
func firstSet(l *store.Lifecycle) {
	of(2, func(k *store.SigningKey) {
		k.PublishedAt, k.ActivatedAt = noon.Add(-2*time.Minute), noon.Add(-time.Minute)
	})(l)
	l.Series.SignedSince = noon.Add(-time.Minute)
}

// steps returns steps as lines: "activate 3 +2m, held: consumer east …".
func steps(l *store.Lifecycle) []string {
	var lines []string
	for _, s := range rotation.Steps(l, rules) {
		at := "some time"
		if !s.At.IsZero() {
			at = "now"
			if d := s.At.Sub(l.Now); d > 0 {
				at = "+" + strings.NewReplacer("m0s", "m", "h0m0s", "h").Replace(d.String())
			}
		}
		line := fmt.Sprintf("%s %d %s", s.Kind, s.Serial, at)
		for _, h := range s.Held {
			line += ", held: " + h.Text
		}
		if s.Reason == "" {
			line += ", for no reason"
		}
		lines = append(lines, line)
	}
	return lines
}

// change returns what Apply does, as lines.
func change(c store.Change) []string {
	var lines []string
	for _, m := range c.Moves {
		lines = append(lines, fmt.Sprintf("%d %s", m.Serial, m.To))
	}
	for _, nk := range c.New {
		line := "new"
		if !nk.ActivateAfter.IsZero() {
			line += ", asked for"
		}
		if nk.Label == "" || nk.Role != store.RolePrimary || nk.Reason == "" {
			line += fmt.Sprintf(", %+v", nk)
		}
		lines = append(lines, line)
	}
	return lines
}

func label() string { return "label" }

// same compares lines. What is wanted may be the beginning of a line.
func same(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.EqualFunc(got, want, func(got, want string) bool {
		return got == want || strings.HasSuffix(want, "…") && strings.HasPrefix(got, strings.TrimSuffix(want, "…"))
	}) {
		t.Errorf("%s:\n%s\nwant\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
