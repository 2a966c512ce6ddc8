package store

import (
	"errors"
	"slices"
	"testing"
	"time"
)

var states = []State{
	StateCreating, StateFailed, StatePublished, StateAbandoned, StateActive, StateRetiring, StateRemoved, StateDistrusted,
}

// TestMoveTo goes through all pairs of states. The legal ones are spelled out
// once more: a typing error in one of the two lists is found by the other.
func TestMoveTo(t *testing.T) {
	legal := map[[2]State]func(*SigningKey) *time.Time{
		{StateCreating, StatePublished}:   func(k *SigningKey) *time.Time { return &k.PublishedAt },
		{StateCreating, StateFailed}:      nil,
		{StatePublished, StateActive}:     func(k *SigningKey) *time.Time { return &k.ActivatedAt },
		{StatePublished, StateAbandoned}:  func(k *SigningKey) *time.Time { return &k.RemovedAt },
		{StatePublished, StateDistrusted}: func(k *SigningKey) *time.Time { return &k.RemovedAt },
		{StateActive, StateRetiring}:      func(k *SigningKey) *time.Time { return &k.RetiredAt },
		{StateActive, StateDistrusted}:    func(k *SigningKey) *time.Time { return &k.RemovedAt },
		{StateRetiring, StateActive}:      func(k *SigningKey) *time.Time { return &k.ActivatedAt },
		{StateRetiring, StateRemoved}:     func(k *SigningKey) *time.Time { return &k.RemovedAt },
		{StateRetiring, StateDistrusted}:  func(k *SigningKey) *time.Time { return &k.RemovedAt },
	}
	now := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	for _, from := range append(states, "", "unknown") {
		for _, to := range append(states, "", "unknown") {
			k := SigningKey{State: from}
			stamp, ok := legal[[2]State{from, to}]
			err := k.moveTo(to, now)
			if !ok {
				if !errors.Is(err, ErrConflict) || k.State != from {
					t.Errorf("%s to %s: got %v and state %s, want a conflict", from, to, err, k.State)
				}
				continue
			}
			want := SigningKey{State: to}
			if stamp != nil {
				*stamp(&want) = now
			}
			if err != nil || k.encoding() == nil || string(k.encoding().buf) != string(want.encoding().buf) {
				t.Errorf("%s to %s: got %v and %+v, want %+v", from, to, err, k, want)
			}
		}
	}
}

func TestVerifies(t *testing.T) {
	want := []State{StatePublished, StateActive, StateRetiring}
	for _, s := range states {
		if s.Verifies() != slices.Contains(want, s) {
			t.Errorf("%s verifies: %t", s, s.Verifies())
		}
	}
}
