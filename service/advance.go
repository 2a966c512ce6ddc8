package service

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/zonemint/zonemint/service/rotation"
	"github.com/zonemint/zonemint/signer"
	"github.com/zonemint/zonemint/store"
)

// rules are the bounds that rotations keep to.
func (s *Service) rules() rotation.Rules { return rotation.Rules{Skew: s.cfg.Skew} }

// keepAdvancing takes the steps of rotations that are due, whenever the lease was
// renewed or the next step's time has come, until ctx ends. It stands apart from
// keepLease because deciding must not hold up the lease.
func (s *Service) keepAdvancing(ctx context.Context, renewed <-chan struct{}) error {
	defer s.makers.Wait()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-renewed:
		case <-timer.C:
		}
		next, err := s.advance(ctx)
		if err != nil && ctx.Err() == nil {
			s.log.ErrorContext(ctx, "rotations not looked at", slog.Any("error", err))
		}
		if next > 0 {
			timer.Reset(next)
		}
	}
}

// advance takes the steps that are due in any keyset, and returns how long it is
// to the next one that can be foreseen, 0 if there is none. Every replica may run
// it; losing a race changes nothing.
func (s *Service) advance(ctx context.Context) (next time.Duration, err error) {
	// Rows that do not match their MAC were logged when the ring was loaded.
	look, cancel := context.WithTimeout(ctx, storeTime)
	defer cancel()
	all, _, err := s.store.Lifecycles(look)
	if err != nil {
		return 0, err
	}
	for i := range all {
		l := &all[i]
		due := false
		for _, step := range rotation.Steps(l, s.rules()) {
			switch {
			case !step.Due(l.Now):
				if wait := step.At.Sub(l.Now); wait > 0 && len(step.Held) == 0 && (next == 0 || wait < next) {
					next = wait
				}
				s.holds.note(ctx, s.log, s.cfg.LeaseTTL, l, &step)
			case step.Kind == rotation.Make:
				k, _ := l.Key(step.Serial)
				s.startMaking(ctx, l.Keyset.Name, k)
			default:
				due = true
			}
		}
		if due {
			s.logAdvance(ctx, l.Keyset.Name, s.settle(ctx, l.Keyset.ID, s.actor()))
		}
	}
	return next, nil
}

// storeTime bounds what a rotation asks of the database at a time: one that has
// gone away without a word must not hold up the replica for longer.
const storeTime = 10 * time.Second

// settle takes the steps of one keyset that are due, in one transaction.
func (s *Service) settle(ctx context.Context, keyset uuid.UUID, by store.Actor) error {
	ctx, cancel := context.WithTimeout(ctx, storeTime)
	defer cancel()
	_, err := s.store.ChangeKeys(ctx, keyset, by, func(l *store.Lifecycle) (store.Change, error) {
		return rotation.Apply(l, s.rules(), signer.NewLabel), nil
	})
	if err == nil {
		s.nudge()
	}
	return err
}

func (s *Service) logAdvance(ctx context.Context, keyset string, err error) {
	switch {
	case err == nil:
		s.log.InfoContext(ctx, "keys advanced", slog.String("keyset", keyset))
	case !errors.Is(err, store.ErrConflict) && ctx.Err() == nil: // a conflict: another replica is at it
		s.log.ErrorContext(ctx, "keys not advanced", slog.String("keyset", keyset), slog.Any("error", err))
	}
}

// holds remembers what was said of steps that are held back, so that it is said
// when it changes and not with every heartbeat.
type holds struct {
	mu   sync.Mutex
	said map[uuid.UUID]string // by key
}

// note says what a step that is overdue waits for, of replicas after some grace.
func (h *holds) note(ctx context.Context, log *slog.Logger, grace time.Duration, l *store.Lifecycle, step *rotation.Step) {
	k, ok := l.Key(step.Serial)
	late := step.At
	if len(step.Held) > 0 && step.Held[0].Replica {
		late = late.Add(grace) // replicas catch up within moments
	}
	if !ok || len(step.Held) == 0 || l.Now.Before(late) {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.said == nil {
		h.said = map[uuid.UUID]string{}
	}
	if h.said[k.ID] == step.Held[0].Text {
		return
	}
	h.said[k.ID] = step.Held[0].Text
	log.WarnContext(ctx, "rotation held back", slog.String("keyset", l.Keyset.Name), slog.String("kid", k.KID),
		slog.String("step", string(step.Kind)), slog.String("waits_for", step.Held[0].Text))
}
