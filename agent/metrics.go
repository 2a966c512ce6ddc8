package agent

import (
	"context"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/attribute"
	otelprom "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	sdk "go.opentelemetry.io/otel/sdk/metric"
)

// Metrics counts what an agent does. A nil one counts nothing.
type Metrics struct {
	registry *prometheus.Registry
	of       atomic.Pointer[Agent]
	last     atomic.Int64 // the last renewal, in seconds since 1970
	offset   atomic.Int64 // of this machine's clock, in nanoseconds

	renewals metric.Int64Counter
	failures metric.Int64Counter
}

// NewMetrics returns metrics for one agent, to be given to it.
func NewMetrics() (*Metrics, error) {
	m := &Metrics{registry: prometheus.NewRegistry()}
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	exporter, err := otelprom.New(otelprom.WithRegisterer(m.registry), otelprom.WithoutScopeInfo(), otelprom.WithoutTargetInfo())
	if err != nil {
		return nil, err
	}
	return m, m.instruments(sdk.NewMeterProvider(sdk.WithReader(exporter)).Meter("github.com/zonemint/zonemint/agent"))
}

func (m *Metrics) instruments(meter metric.Meter) (err error) {
	if m.renewals, err = meter.Int64Counter("zonemint.agent.renewals",
		metric.WithDescription("Attempts to put a new token in its place, by outcome: ok or failed.")); err != nil {
		return err
	}
	if m.failures, err = meter.Int64Counter("zonemint.agent.failures",
		metric.WithDescription("What failed, by kind: denied, unavailable, refused, token, sink or hook.")); err != nil {
		return err
	}
	for _, kind := range []string{kindDenied, kindUnavailable, kindRefused, kindToken, kindSink, kindHook} {
		m.failures.Add(context.Background(), 0, metric.WithAttributes(attribute.String("kind", kind)))
	}
	for _, outcome := range []string{"ok", "failed"} {
		m.renewals.Add(context.Background(), 0, metric.WithAttributes(attribute.String("outcome", outcome)))
	}
	return m.gauges(meter)
}

// gauges are read when somebody asks for the metrics.
func (m *Metrics) gauges(meter metric.Meter) error {
	for _, g := range []struct {
		name, text string
		read       func() float64
	}{
		{"zonemint.agent.token.expiry.timestamp", "When the token in its place expires, in seconds since 1970; 0 if there is none.", m.expiry},
		{"zonemint.agent.token.remaining", "For how long the token in its place is valid, whatever this machine's clock says; 0 if it is not.", m.remaining},
		{"zonemint.agent.renewed.timestamp", "When this process last put a new token in its place, in seconds since 1970; 0 if it did not.",
			func() float64 { return float64(m.last.Load()) }},
		{"zonemint.agent.clock.offset", "This machine's clock minus the server's, when the last token was issued.",
			func() float64 { return time.Duration(m.offset.Load()).Seconds() }},
	} {
		_, err := meter.Float64ObservableGauge(g.name, metric.WithUnit("s"), metric.WithDescription(g.text),
			metric.WithFloat64Callback(func(_ context.Context, o metric.Float64Observer) error {
				o.Observe(g.read())
				return nil
			}))
		if err != nil {
			return err
		}
	}
	return nil
}

func (m *Metrics) expiry() float64 {
	if a := m.of.Load(); a != nil {
		if held := a.holding(); held != nil {
			return float64(held.ExpiresAt.Unix())
		}
	}
	return 0
}

func (m *Metrics) remaining() float64 {
	if a := m.of.Load(); a != nil {
		if held := a.holding(); held != nil {
			return max(held.left(a.now()).Seconds(), 0)
		}
	}
	return 0
}

func (m *Metrics) renewed(ctx context.Context, outcome string) {
	if m == nil {
		return
	}
	if outcome == "ok" {
		m.last.Store(time.Now().Unix())
	}
	m.renewals.Add(ctx, 1, metric.WithAttributes(attribute.String("outcome", outcome)))
}

func (m *Metrics) failed(ctx context.Context, kind string) {
	if m == nil {
		return
	}
	m.failures.Add(ctx, 1, metric.WithAttributes(attribute.String("kind", kind)))
}

func (m *Metrics) compared(offset time.Duration) {
	if m != nil {
		m.offset.Store(int64(offset))
	}
}

// Handler returns what others may ask an agent: its metrics, whether it lives, and
// whether there is a valid token in its place.
func Handler(a *Agent, m *Metrics) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz/live", func(w http.ResponseWriter, _ *http.Request) { health(w, nil) })
	mux.HandleFunc("GET /healthz/ready", func(w http.ResponseWriter, _ *http.Request) { health(w, a.Ready()) })
	return mux
}

func health(w http.ResponseWriter, err error) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	text := "ok"
	if err != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		text = err.Error()
	}
	_, _ = w.Write([]byte(text + "\n"))
}
