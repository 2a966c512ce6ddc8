package service

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/zonemint/zonemint/store"
)

// beat renews the lease, measures the clock, loads the ring if it has changed,
// and says so: rotations wait for every replica to have loaded it.
//
// The lease is taken only when the ring is known to be as new as the heartbeat: a
// replica that reaches the database and cannot load the ring must not go on telling
// verifiers that its JWK sets are good.
func (s *Service) beat(ctx context.Context) error {
	// Without a lease of its own the replica first asks for none: while it cannot
	// load the ring, rotations need not wait for it.
	ttl := s.cfg.LeaseTTL
	if s.ring.Load() != nil && s.clock.remaining(ttl) == 0 {
		ttl = 0
	}
	for {
		h, err := s.renew(ctx, ttl)
		if err != nil {
			return err
		}
		if snapshot := s.ring.Load(); snapshot != nil && snapshot.Generation != h.now.Generation {
			if err := s.ring.Refresh(ctx); err != nil {
				return err
			}
		}
		if ttl == 0 {
			ttl = s.cfg.LeaseTTL
			continue
		}
		s.reportClock(ctx, s.clock.renew(h.sent, h.answered, h.now.Now, s.cfg.LeaseTTL))
		snapshot := s.ring.Load()
		switch {
		case snapshot == nil: // at the start: New loads the ring
			return nil
		case snapshot.Acknowledged() != h.said: // loaded, and not said yet
		case snapshot.Broken():
			return s.ring.Refresh(ctx)
		default:
			return nil
		}
	}
}

// heartbeat is what a replica told the database and what that answered.
type heartbeat struct {
	said           int64 // the generation of the ring
	sent, answered instant
	now            store.Beat
}

func (s *Service) renew(ctx context.Context, ttl time.Duration) (h heartbeat, err error) {
	if snapshot := s.ring.Load(); snapshot != nil {
		h.said = snapshot.Acknowledged()
	}
	h.sent = s.clock.read()
	h.now, err = s.store.Heartbeat(ctx, store.Replica{
		ID: s.replica, Name: s.cfg.Name, Version: s.cfg.Version, Generation: h.said,
		ClockOffset: s.clock.offset(), CacheFor: s.cfg.CacheFor(), LeaseTTL: s.cfg.LeaseTTL,
	}, ttl)
	if err != nil {
		return h, fmt.Errorf("renewing the lease: %w", err)
	}
	h.answered = s.clock.read()
	return h, nil
}

// nudge asks for a heartbeat now.
func (s *Service) nudge() {
	select {
	case s.nudged <- struct{}{}:
	default: // it was asked for already
	}
}

// wake is told by the database that something has changed.
func (s *Service) wake(topic store.Topic) {
	switch topic {
	case store.TopicRing:
		s.nudge()
	case store.TopicRevocations:
		s.feed.Wake()
	}
}

// keepLease renews the lease until ctx ends, and says so after each time. While
// the database is away it goes on trying; when the lease runs out, issuing stops
// by itself.
func (s *Service) keepLease(ctx context.Context, renewed chan<- struct{}) error {
	interval := s.cfg.LeaseTTL / 6
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for down := false; ; {
		attempt, cancel := context.WithTimeout(ctx, interval)
		err := s.beat(attempt)
		cancel()
		if err == nil {
			select {
			case renewed <- struct{}{}:
			default:
			}
		}
		if was := down; was != (err != nil) && ctx.Err() == nil {
			down = err != nil
			s.logTouch(ctx, err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		case <-s.nudged:
		}
	}
}

func (s *Service) logTouch(ctx context.Context, err error) {
	if err != nil {
		s.log.ErrorContext(ctx, "lost touch with the database", slog.Any("error", err),
			slog.String("signing_stops_in", s.clock.remaining(s.cfg.LeaseTTL).Round(time.Millisecond).String()))
		return
	}
	s.log.InfoContext(ctx, "back in touch with the database")
}

// keepMaintained maintains the ledger, now and every hour, until ctx ends.
func (s *Service) keepMaintained(ctx context.Context) error {
	tick := time.NewTicker(time.Hour)
	defer tick.Stop()
	for {
		done, err := s.maintain(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			s.log.ErrorContext(ctx, "ledger not maintained", slog.Any("error", err))
		case done.RowsForgotten > 0 || done.RevocationsForgotten > 0 || len(done.PartitionsMade) > 0:
			s.log.InfoContext(ctx, "ledger maintained", slog.Int64("rows_forgotten", done.RowsForgotten),
				slog.Int64("revocations_forgotten", done.RevocationsForgotten),
				slog.Any("partitions_forgotten", done.PartitionsForgotten), slog.Any("partitions_made", done.PartitionsMade))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// maintain does so once, if the database's clock can be trusted: one that is a day
// ahead would have it forget what is still good.
func (s *Service) maintain(ctx context.Context) (store.Maintained, error) {
	if _, err := s.clock.stamp(); err != nil {
		return store.Maintained{}, err
	}
	return s.store.Maintain(ctx, s.cfg.Retention)
}
