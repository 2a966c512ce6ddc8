package service

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/zonemint/zonemint/service/keyring"
	"github.com/zonemint/zonemint/signer"
)

// keysetSwitch is that another key signs for a keyset, in this replica.
type keysetSwitch struct {
	keyset, kid, reason string
	from, to            string // backends
	standby             bool
	at                  time.Time
}

// keysetTo is what switches are counted by: a keyset and the backend whose key signs.
type keysetTo struct{ keyset, to string }

// standIn lets the standby sign from now on, if it does not already.
func (s *Service) standIn(ks *keyring.Keyset, reason string) {
	own, err := ks.Active()
	standby := ks.Standby()
	if err != nil || standby == nil {
		return
	}
	s.stands.mu.Lock()
	st := s.stands.of(ks.ID)
	if st.in {
		s.stands.mu.Unlock()
		return
	}
	if soon := !st.left.IsZero() && time.Since(st.left) < 2*st.rest; soon {
		st.rest = min(2*st.rest, max(longestReturn, s.cfg.Standby.ReturnAfter))
	} else {
		st.rest = s.cfg.Standby.ReturnAfter
	}
	st.in, st.well = true, time.Time{}
	s.stands.mu.Unlock()
	s.switched(keysetSwitch{keyset: ks.Name, from: own.Backend, to: standby.Backend, kid: standby.KID, reason: reason, standby: true})
}

// standDown lets the keyset's own key sign again.
func (s *Service) standDown(ks *keyring.Keyset, own *keyring.Active, reason string) {
	from := ""
	if standby := ks.Standby(); standby != nil {
		from = standby.Backend
	}
	s.switched(keysetSwitch{keyset: ks.Name, from: from, to: own.Backend, kid: own.KID, reason: reason})
}

// switched says so, now in the log and the metrics, and soon in the audit: a request
// must not wait for that.
func (s *Service) switched(c keysetSwitch) {
	c.at = time.Now()
	about := []any{
		slog.String("keyset", c.keyset), slog.String("kid", c.kid), slog.String("from", c.from), slog.String("to", c.to), slog.String("reason", c.reason),
	}
	if c.standby {
		s.log.Warn("the standby signs", about...)
	} else {
		s.log.Info("the keyset's own key signs again", about...)
	}
	s.stands.mu.Lock()
	defer s.stands.mu.Unlock()
	if s.stands.total == nil {
		s.stands.total = map[keysetTo]int64{}
	}
	s.stands.total[keysetTo{c.keyset, c.to}]++
	if len(s.stands.switches) < mostSwitches {
		s.stands.switches = append(s.stands.switches, c)
	} else {
		s.log.Error("switch will not be in the audit: too many wait for the database", about...)
	}
}

// mostSwitches is how many wait for the audit while the database does not answer.
// There is at most one in ReturnAfter for each keyset.
const mostSwitches = 1000

// keepStandby finds out when backends that are stood in for are well again, and
// brings switches into the audit, until ctx ends.
func (s *Service) keepStandby(ctx context.Context) error {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		var wg sync.WaitGroup
		for _, ks := range s.ring.Load().Keysets() {
			if s.stands.in(ks.ID) {
				wg.Go(func() { s.lookWhetherWell(ctx, ks) })
			}
		}
		wg.Wait()
		s.auditSwitches(ctx)
		select {
		case <-ctx.Done():
			s.auditSwitches(context.WithoutCancel(ctx)) // the last ones
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// lookWhetherWell ends the stand-in once the keyset's own backend has been well for
// long enough.
func (s *Service) lookWhetherWell(ctx context.Context, ks *keyring.Keyset) {
	own, err := ks.Active()
	if err != nil {
		return // a rotation is under way that will say which key signs
	}
	probe, cancel := context.WithTimeout(ctx, s.cfg.Standby.Patience)
	defer cancel()
	err = own.Probe(probe)
	if ctx.Err() != nil {
		return
	}
	incident := err != nil && !standsIn(err)
	if !s.stands.rested(ks.ID, err == nil, incident || ks.Standby() == nil) {
		return
	}
	reason := "backend \"" + own.Backend + "\" is well again"
	if incident {
		// It is there, and does what nobody stands in for: callers are to see it.
		reason = "backend \"" + own.Backend + "\" is there and fails: " + signer.CodeOf(err).String()
		s.log.ErrorContext(ctx, "the backend that the standby stood in for is there and fails", slog.String("keyset", ks.Name),
			slog.String("kid", own.KID), slog.Any("error", err))
	}
	s.standDown(ks, own, reason)
}

// rested notes how the keyset's own backend is, and says whether its key signs from
// now on; at once if it is to.
func (s *stands) rested(keyset uuid.UUID, well, atOnce bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	st, now := s.of(keyset), time.Now()
	switch {
	case !st.in:
		return false
	case !well && !atOnce:
		st.well = time.Time{}
		return false
	case st.well.IsZero():
		st.well = now
	}
	if now.Sub(st.well) < st.rest && !atOnce {
		return false
	}
	st.in, st.left = false, now
	st.from, st.asked, st.throttled = now, 0, 0
	return true
}

// auditSwitches writes down what has switched. What cannot be written is kept, so
// where only the reply was lost it stands there twice, with the same time.
func (s *Service) auditSwitches(ctx context.Context) {
	s.stands.mu.Lock()
	pending := s.stands.switches
	s.stands.switches = nil
	s.stands.mu.Unlock()
	for i, c := range pending {
		if err := s.auditSwitch(ctx, c); err != nil {
			s.stands.mu.Lock()
			s.stands.switches = append(pending[i:], s.stands.switches...)
			s.stands.mu.Unlock()
			if ctx.Err() == nil {
				s.log.WarnContext(ctx, "switch not in the audit yet", slog.String("keyset", c.keyset), slog.Any("error", err))
			}
			return
		}
	}
}

func (s *Service) auditSwitch(ctx context.Context, c keysetSwitch) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	action := "keyset.standby-down"
	if c.standby {
		action = "keyset.standby-in"
	}
	return s.store.Note(ctx, s.actor(), action, c.keyset, map[string]any{
		"from": c.from, "to": c.to, "kid": c.kid, "reason": c.reason, "at": c.at.UTC().Format(time.RFC3339Nano),
	})
}

func (m *Metrics) standbyInstruments(meter metric.Meter, s *Service) (err error) {
	if _, err = meter.Int64ObservableCounter("zonemint.standby.switches",
		metric.WithDescription("How often another key began to sign because of its backend, by keyset and backend."),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			s.stands.mu.Lock()
			defer s.stands.mu.Unlock()
			for about, n := range s.stands.total {
				o.Observe(n, metric.WithAttributes(attribute.String("keyset", about.keyset), attribute.String("to", about.to)))
			}
			return nil
		})); err != nil {
		return err
	}
	_, err = meter.Int64ObservableGauge("zonemint.standby.signing",
		metric.WithDescription("Whether the standby of a keyset signs in this replica."),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			for _, ks := range s.ring.Load().Keysets() {
				if ks.Standby() == nil {
					continue
				}
				in := int64(0)
				if s.stands.in(ks.ID) {
					in = 1
				}
				o.Observe(in, metric.WithAttributes(attribute.String("keyset", ks.Name)))
			}
			return nil
		}))
	return err
}
