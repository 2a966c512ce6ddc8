package service

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/zonemint/zonemint/signer"
)

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
	return m.budgetInstruments(meter, s)
}

// budgetInstruments show how a backend's signatures are shared out.
func (m *Metrics) budgetInstruments(meter metric.Meter, s *Service) error {
	for _, g := range []struct {
		name, text string
		read       func(signer.BudgetStats) float64
	}{
		{"zonemint.backend.budget", "Signatures a second that a backend is asked for at the most; 0 if nothing bounds them.", func(b signer.BudgetStats) float64 { return b.PerSecond }},
		{"zonemint.backend.queue", "Requests that wait for their keyset's turn at a backend.", func(b signer.BudgetStats) float64 { return float64(b.Waiting) }},
	} {
		_, err := meter.Float64ObservableGauge(g.name, metric.WithDescription(g.text),
			metric.WithFloat64Callback(func(_ context.Context, o metric.Float64Observer) error {
				for name, budget := range s.budgets {
					o.Observe(g.read(budget.Stats()), metric.WithAttributes(attribute.String("backend", name)))
				}
				return nil
			}))
		if err != nil {
			return err
		}
	}
	_, err := meter.Int64ObservableCounter("zonemint.backend.crowded", metric.WithDescription("Requests that were told to come back later."),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			for name, budget := range s.budgets {
				o.Observe(budget.Stats().GaveUp, metric.WithAttributes(attribute.String("backend", name)))
			}
			return nil
		}))
	return err
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

func (m *Metrics) backendRefused(ctx context.Context, name, op string) {
	m.backendRefusals.Add(ctx, 1, metric.WithAttributes(attribute.String("backend", name), attribute.String("op", op)))
}
