package service

import (
	"context"
	"errors"
	"log/slog"
)

// reportClock logs what a heartbeat has changed in the opinion of the clock, once.
func (s *Service) reportClock(ctx context.Context, t turn) {
	if t.jump.Abs() > jumpTolerance {
		s.log.WarnContext(ctx, "this replica's clock jumped", slog.String("by", rough(t.jump).String()))
	}
	if errors.Is(t.is, errors.Unwrap(t.was)) {
		return // the text may differ, the kind does not
	}
	if t.is != nil {
		s.log.ErrorContext(ctx, "clock is no good, nothing is signed", slog.Any("error", t.is),
			slog.String("offset", s.clock.offset().String()), slog.String("uncertainty", s.clock.uncertainty().String()))
		return
	}
	s.log.InfoContext(ctx, "clock is good again", slog.String("offset", s.clock.offset().String()))
}
