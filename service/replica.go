package service

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/zonemint/zonemint/store"
)

// beat renews the lease, measures the clock, and refreshes the ring if it has
// changed.
func (s *Service) beat(ctx context.Context) error {
	var generation int64
	snapshot := s.ring.Load()
	if snapshot != nil {
		generation = snapshot.Generation
	}
	sent := s.cfg.Now()
	b, err := s.store.Heartbeat(ctx, store.Replica{
		ID: s.replica, Name: s.cfg.Name, Version: s.cfg.Version,
		Generation: generation, ClockOffset: s.clock.offset(),
	}, s.cfg.LeaseTTL)
	if err != nil {
		return fmt.Errorf("renewing the lease: %w", err)
	}
	s.clock.renew(sent, s.cfg.Now(), b.Now, s.cfg.LeaseTTL)
	if snapshot == nil || (b.Generation == generation && !snapshot.Broken()) {
		return nil
	}
	return s.ring.Refresh(ctx)
}

// keepLease renews the lease until ctx ends, and says so after each time. While
// the database is away it goes on trying; when the lease runs out, issuing stops
// by itself.
func (s *Service) keepLease(ctx context.Context, renewed chan<- struct{}) error {
	interval := s.cfg.LeaseTTL / 6
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for down := false; ; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
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
	}
}

// keepAdvancing finishes what was begun, whenever the lease was renewed, until
// ctx ends. It stands apart from keepLease because making a key may take longer
// than the lease lasts.
func (s *Service) keepAdvancing(ctx context.Context, renewed <-chan struct{}) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-renewed:
			s.advance(ctx)
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
		done, err := s.store.Maintain(ctx, s.cfg.Retention)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			s.log.ErrorContext(ctx, "ledger not maintained", slog.Any("error", err))
		case done.RowsForgotten > 0 || len(done.PartitionsMade) > 0:
			s.log.InfoContext(ctx, "ledger maintained", slog.Int64("rows_forgotten", done.RowsForgotten),
				slog.Any("partitions_forgotten", done.PartitionsForgotten), slog.Any("partitions_made", done.PartitionsMade))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}
