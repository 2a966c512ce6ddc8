package service

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/attribute"
	otelprom "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	sdk "go.opentelemetry.io/otel/sdk/metric"

	"github.com/zonemint/zonemint/service/keyring"
)

// Metrics measures a replica. What it measures is named in docs/operations.md;
// identifiers of tokens, zones and callers are never labels.
type Metrics struct {
	registry *prometheus.Registry
	provider *sdk.MeterProvider
	labels   sync.Map // of method and code, to their ready-made attributes

	requests    metric.Float64Histogram
	commits     metric.Float64Histogram
	commitRows  metric.Int64Histogram
	commitFails metric.Int64Counter
	streams     metric.Int64UpDownCounter
	streamsDone metric.Int64Counter
	revocations metric.Int64Counter
	legacy      metric.Int64Counter

	backendCalls    metric.Float64Histogram
	backendRefusals metric.Int64Counter
}

var (
	secondsBuckets = metric.WithExplicitBucketBoundaries(
		.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5)
	rowBuckets = metric.WithExplicitBucketBoundaries(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096)
)

func newMetrics(s *Service) (*Metrics, error) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	exporter, err := otelprom.New(otelprom.WithRegisterer(registry), otelprom.WithoutScopeInfo(), otelprom.WithoutTargetInfo())
	if err != nil {
		return nil, err
	}
	m := &Metrics{registry: registry, provider: sdk.NewMeterProvider(sdk.WithReader(exporter))}
	return m, m.instruments(s)
}

func (m *Metrics) instruments(s *Service) (err error) {
	meter := m.provider.Meter("github.com/zonemint/zonemint/service")
	if m.requests, err = meter.Float64Histogram("zonemint.request.duration", metric.WithUnit("s"), secondsBuckets,
		metric.WithDescription("How long requests took, by method and Connect code.")); err != nil {
		return err
	}
	if m.commits, err = meter.Float64Histogram("zonemint.ledger.commit.duration", metric.WithUnit("s"), secondsBuckets,
		metric.WithDescription("How long ledger transactions took.")); err != nil {
		return err
	}
	if m.commitRows, err = meter.Int64Histogram("zonemint.ledger.commit.rows", rowBuckets,
		metric.WithDescription("How many tokens shared a ledger transaction.")); err != nil {
		return err
	}
	if m.commitFails, err = meter.Int64Counter("zonemint.ledger.commit.failures",
		metric.WithDescription("Ledger transactions that failed.")); err != nil {
		return err
	}
	if err := m.feedInstruments(meter); err != nil {
		return err
	}
	if err := m.standbyInstruments(meter, s); err != nil {
		return err
	}
	if err := m.backendInstruments(meter, s); err != nil {
		return err
	}
	return m.gauges(meter, s)
}

func (m *Metrics) feedInstruments(meter metric.Meter) (err error) {
	if m.streams, err = meter.Int64UpDownCounter("zonemint.streams",
		metric.WithDescription("Streams that are open, by method.")); err != nil {
		return err
	}
	if m.streamsDone, err = meter.Int64Counter("zonemint.streams.ended",
		metric.WithDescription("Streams that have ended, by method and Connect code.")); err != nil {
		return err
	}
	if m.revocations, err = meter.Int64Counter("zonemint.revocations",
		metric.WithDescription("Token IDs that were revoked or lifted, by how it was asked for.")); err != nil {
		return err
	}
	m.legacy, err = meter.Int64Counter("zonemint.legacy.issued",
		metric.WithDescription("Old HS256 tokens that were issued, by kind."))
	return err
}

// gauges are read when somebody asks for the metrics.
func (m *Metrics) gauges(meter metric.Meter, s *Service) error {
	for _, g := range []struct {
		name, unit, text string
		read             func() float64
	}{
		{"zonemint.lease.remaining", "s", "How long this replica may sign without word from the database.",
			func() float64 { return s.clock.remaining(s.cfg.LeaseTTL).Seconds() }},
		{"zonemint.clock.offset", "s", "The database's clock minus this replica's.",
			func() float64 { return s.clock.offset().Seconds() }},
		{"zonemint.clock.uncertainty", "s", "By how much the database's clock may differ from what this replica takes it for.",
			func() float64 { return s.clock.uncertainty().Seconds() }},
		{"zonemint.ring.generation", "", "The generation of the key ring that this replica has loaded.",
			func() float64 { return float64(s.ring.Load().Generation) }},
		{"zonemint.ring.faults", "", "Rows of keysets and keys that are left out because they do not match their MAC.",
			func() float64 { return float64(s.ring.Load().Faults()) }},
		{"zonemint.ledger.waiting", "", "Requests whose ledger rows wait for a transaction.",
			func() float64 { return float64(s.ledger.Waiting()) }},
		{"zonemint.feed.age", "s", "How long ago the revocation feeds in memory were last known to be complete.",
			func() float64 { return s.feed.Age().Seconds() }},
	} {
		_, err := meter.Float64ObservableGauge(g.name, metric.WithUnit(g.unit), metric.WithDescription(g.text),
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

// called counts a request.
func (m *Metrics) called(ctx context.Context, method string, start time.Time, err error) {
	code := "ok"
	if err != nil {
		c, _ := explain(err)
		code = c.String()
	}
	m.requests.Record(ctx, time.Since(start).Seconds(), m.label(method, code))
}

// label returns the attributes of a method and a code, which are few, without
// building them for every request.
func (m *Metrics) label(method, code string) metric.MeasurementOption {
	key := [2]string{method, code}
	if l, ok := m.labels.Load(key); ok {
		return l.(metric.MeasurementOption)
	}
	l := metric.WithAttributeSet(attribute.NewSet(attribute.String("method", method), attribute.String("code", code)))
	m.labels.Store(key, l)
	return l
}

// streamBegins and streamEnds count streams. How long they last says nothing.
func (m *Metrics) streamBegins(ctx context.Context, method string) {
	m.streams.Add(ctx, 1, metric.WithAttributes(attribute.String("method", method)))
}

func (m *Metrics) streamEnds(ctx context.Context, method, code string) {
	m.streams.Add(ctx, -1, metric.WithAttributes(attribute.String("method", method)))
	m.streamsDone.Add(ctx, 1, m.label(method, code))
}

// revoked counts revocations: by "jti", "token" or "filter", or a "lift".
func (m *Metrics) revoked(ctx context.Context, how string, n int64) {
	m.revocations.Add(ctx, n, metric.WithAttributes(attribute.String("how", how)))
}

// issuedLegacy counts an old HS256 token.
func (m *Metrics) issuedLegacy(ctx context.Context, kind string) {
	m.legacy.Add(ctx, 1, metric.WithAttributes(attribute.String("kind", kind)))
}

// committed counts a ledger transaction.
func (m *Metrics) committed(rows int, took time.Duration, err error) {
	ctx := context.Background()
	if err != nil {
		m.commitFails.Add(ctx, 1)
		return
	}
	m.commits.Record(ctx, took.Seconds())
	m.commitRows.Record(ctx, int64(rows))
}

// PrivateHandler returns the private port: health and metrics. It must not be
// reachable from outside.
func (s *Service) PrivateHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.metrics.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz/live", func(w http.ResponseWriter, _ *http.Request) { health(w, nil) })
	mux.HandleFunc("GET /healthz/ready", func(w http.ResponseWriter, _ *http.Request) { health(w, s.Ready()) })
	return mux
}

// Ready says why this replica cannot issue tokens, nil if it can. JWK sets are
// served all the same. A keyset without an active key, such as one that is being
// made, does not count: no other replica could do better.
func (s *Service) Ready() error {
	if _, err := s.clock.stamp(); err != nil {
		return err
	}
	if err := s.backendsUp(); err != nil {
		return err // first: it names the backend
	}
	for _, ks := range s.ring.Load().Keysets() {
		if err := ks.Ready(); err != nil && !errors.Is(err, keyring.ErrNoActiveKey) {
			return err
		}
	}
	return nil
}

func health(w http.ResponseWriter, err error) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if err != nil {
		_, text := explain(err)
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = w.Write([]byte(text + "\n"))
		return
	}
	_, _ = w.Write([]byte("ok\n"))
}
