package service

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/zonemint/zonemint/signer"
)

// guarded puts a guard before every backend outside this process: it is measured,
// and while it is down nobody waits for it.
func (s *Service) guarded(backends map[string]signer.Backend) map[string]signer.Backend {
	out := make(map[string]signer.Backend, len(backends))
	s.guards = map[string]*signer.Guard{}
	for name, b := range backends {
		if !b.Traits().Remote {
			out[name] = b
			continue
		}
		g := signer.NewGuard(b, signer.GuardOptions{
			Observe: func(op string, took time.Duration, err error) { s.metrics.backendCalled(b, name, op, took, err) },
			Refused: func(op string) { s.metrics.backendRefused(name, op) },
			Changed: func(down error) { s.backendChanged(name, down) },
		})
		out[name], s.guards[name] = g, g
	}
	return out
}

// backendDownError says that a backend does not answer. Its text is for everybody; what
// the backend said is in the log.
type backendDownError struct {
	name string
	err  error
}

func (e *backendDownError) Error() string { return fmt.Sprintf("backend %q does not answer", e.name) }

func (e *backendDownError) Unwrap() error { return e.err }

// backendsUp says which backend that a key should sign with is down.
func (s *Service) backendsUp() error {
	for _, ks := range s.ring.Load().Keysets() {
		key, err := ks.Active()
		if err != nil {
			continue
		}
		if g, ok := s.guards[key.Backend]; ok {
			if err := g.Down(); err != nil {
				return &backendDownError{key.Backend, err}
			}
		}
	}
	return nil
}

// backendChanged logs that a backend went down, or is back.
func (s *Service) backendChanged(name string, down error) {
	if down != nil {
		s.log.Error("backend is down, its keys do not sign", slog.String("backend", name), slog.Any("error", down))
		return
	}
	s.log.Info("backend is back", slog.String("backend", name))
}

func (m *Metrics) backendInstruments(meter metric.Meter, s *Service) (err error) {
	if m.backendCalls, err = meter.Float64Histogram("zonemint.backend.call.duration", metric.WithUnit("s"), secondsBuckets,
		metric.WithDescription("How long calls of signing backends took, by backend, operation and kind of failure.")); err != nil {
		return err
	}
	if m.backendRefusals, err = meter.Int64Counter("zonemint.backend.refused",
		metric.WithDescription("Calls that were not made because the backend is down.")); err != nil {
		return err
	}
	for _, g := range []struct {
		name, text string
		read       func(*signer.Guard) (float64, bool)
	}{
		{"zonemint.backend.up", "Whether a signing backend answers.", func(g *signer.Guard) (float64, bool) {
			if g.Down() != nil {
				return 0, true
			}
			return 1, true
		}},
		{"zonemint.backend.in.use", "Sessions or connections of a signing backend in use.", usage(func(u signer.Usage) float64 { return float64(u.InUse) })},
		{"zonemint.backend.limit", "How many sessions or connections may be in use.", usage(func(u signer.Usage) float64 { return float64(u.Limit) })},
		{"zonemint.backend.waiting", "Calls that wait for a session or connection.", usage(func(u signer.Usage) float64 { return float64(u.Waiting) })},
		{"zonemint.backend.gave.up", "Calls that waited for one in vain, since the start.", usage(func(u signer.Usage) float64 { return float64(u.GaveUp) })},
	} {
		_, err := meter.Float64ObservableGauge(g.name, metric.WithDescription(g.text),
			metric.WithFloat64Callback(func(_ context.Context, o metric.Float64Observer) error {
				for name, guard := range s.guards {
					if v, ok := g.read(guard); ok {
						o.Observe(v, metric.WithAttributes(attribute.String("backend", name)))
					}
				}
				return nil
			}))
		if err != nil {
			return err
		}
	}
	return nil
}

func usage(of func(signer.Usage) float64) func(*signer.Guard) (float64, bool) {
	return func(g *signer.Guard) (float64, bool) {
		u, ok := g.Usage()
		return of(u), ok
	}
}

// backendCalled measures a call. The kind of its failure is b's own.
func (m *Metrics) backendCalled(b signer.Backend, name, op string, took time.Duration, err error) {
	code := "ok"
	if err != nil {
		code = b.Code(err).String()
	}
	m.backendCalls.Record(context.Background(), took.Seconds(), metric.WithAttributes(
		attribute.String("backend", name), attribute.String("op", op), attribute.String("code", code)))
}

func (m *Metrics) backendRefused(name, op string) {
	m.backendRefusals.Add(context.Background(), 1, metric.WithAttributes(attribute.String("backend", name), attribute.String("op", op)))
}
