package bridge

import (
	"context"
	"errors"
	"net/http"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/attribute"
	otelprom "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	sdk "go.opentelemetry.io/otel/sdk/metric"

	"github.com/zonemint/zonemint/kuma"
	"github.com/zonemint/zonemint/kuma/controlplane"
)

// metrics measures a bridge. Its labels are names of control planes, secrets and
// keysets, never IDs of keys or tokens.
type metrics struct {
	registry *prometheus.Registry
	writes   metric.Int64Counter
	repairs  metric.Int64Counter
	failures metric.Int64Counter

	mu    sync.Mutex
	lists map[listName]listSize
}

type listName struct{ plane, secret string }

type listSize struct{ entries, bytes int }

func newMetrics(b *Bridge) (*metrics, error) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	exporter, err := otelprom.New(otelprom.WithRegisterer(registry), otelprom.WithoutScopeInfo(), otelprom.WithoutTargetInfo())
	if err != nil {
		return nil, err
	}
	m := &metrics{registry: registry, lists: map[listName]listSize{}}
	meter := sdk.NewMeterProvider(sdk.WithReader(exporter)).Meter("github.com/zonemint/zonemint/kuma/bridge")
	if m.writes, err = meter.Int64Counter("zonemint.kuma.writes",
		metric.WithDescription("Secrets that were written or deleted, by control plane, kind and outcome.")); err != nil {
		return nil, err
	}
	if m.repairs, err = meter.Int64Counter("zonemint.kuma.repairs",
		metric.WithDescription("Secrets that somebody else had changed and that were mended.")); err != nil {
		return nil, err
	}
	if m.failures, err = meter.Int64Counter("zonemint.kuma.failures",
		metric.WithDescription("What could not be read, written or acknowledged, by control plane and reason.")); err != nil {
		return nil, err
	}
	return m, m.gauges(meter, b)
}

// gauges are read when somebody asks for the metrics.
func (m *metrics) gauges(meter metric.Meter, b *Bridge) error {
	for _, g := range []struct {
		name, unit, text string
		read             func(metric.Float64Observer)
	}{
		{"zonemint.kuma.success.time", "s", "When a control plane was last seen to be up to date, in seconds since 1970; 0 is never.", b.observeSuccess},
		{"zonemint.kuma.up.to.date", "", "Whether a control plane was up to date when it was last compared.", b.observeState},
		{"zonemint.kuma.feed.age", "s", "How old the last word from a keyset's revocation feed is.", b.observeFeeds},
		{"zonemint.kuma.list.entries", "", "Entries in a list of revoked tokens.", m.observeLists(func(s listSize) int { return s.entries })},
		{"zonemint.kuma.list.size", "By", "The size of a list of revoked tokens. A secret holds 1048576.", m.observeLists(func(s listSize) int { return s.bytes })},
	} {
		_, err := meter.Float64ObservableGauge(g.name, metric.WithUnit(g.unit), metric.WithDescription(g.text),
			metric.WithFloat64Callback(func(_ context.Context, o metric.Float64Observer) error {
				g.read(o)
				return nil
			}))
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *Bridge) observeSuccess(o metric.Float64Observer) {
	for _, p := range b.planes {
		p.mu.Lock()
		at := 0.0
		if !p.good.IsZero() {
			at = float64(p.good.UnixMilli()) / 1000
		}
		p.mu.Unlock()
		o.Observe(at, planeLabel(p.Name))
	}
}

func (b *Bridge) observeState(o metric.Float64Observer) {
	for _, p := range b.planes {
		state := 1.0
		if p.ready() != nil {
			state = 0
		}
		o.Observe(state, planeLabel(p.Name))
	}
}

func (b *Bridge) observeFeeds(o metric.Float64Observer) {
	for _, v := range b.source.views() {
		if v.complete {
			o.Observe(v.age.Seconds(), metric.WithAttributes(attribute.String("keyset", v.name)))
		}
	}
}

func (m *metrics) observeLists(what func(listSize) int) func(metric.Float64Observer) {
	return func(o metric.Float64Observer) {
		m.mu.Lock()
		defer m.mu.Unlock()
		for name, size := range m.lists {
			o.Observe(float64(what(size)), planeLabel(name.plane), metric.WithAttributes(attribute.String("secret", name.secret)))
		}
	}
}

func planeLabel(name string) metric.MeasurementOption {
	return metric.WithAttributes(attribute.String("control_plane", name))
}

func (m *metrics) list(plane string, ref kuma.Ref, entries, bytes int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lists[listName{plane, ref.String()}] = listSize{entries, bytes}
}

func (m *metrics) wrote(ctx context.Context, plane, kind string, what Outcome) {
	m.writes.Add(ctx, 1, planeLabel(plane), metric.WithAttributes(attribute.String("kind", kind), attribute.String("outcome", string(what))))
}

func (m *metrics) repaired(ctx context.Context, plane string) {
	m.repairs.Add(ctx, 1, planeLabel(plane))
}

func (m *metrics) failed(ctx context.Context, plane string, err error) {
	m.failures.Add(ctx, 1, planeLabel(plane), metric.WithAttributes(attribute.String("reason", reason(err))))
}

// reason names an error's kind.
func reason(err error) string {
	for _, kind := range []struct {
		err  error
		name string
	}{
		{errTooLarge, "too_large"}, {controlplane.ErrDenied, "denied"}, {controlplane.ErrReadOnly, "read_only"},
		{controlplane.ErrNoMesh, "no_mesh"}, {controlplane.ErrTaken, "name_taken"}, {controlplane.ErrConflict, "conflict"},
		{controlplane.ErrForbidden, "forbidden"}, {controlplane.ErrUnavailable, "unavailable"},
	} {
		if errors.Is(err, kind.err) {
			return kind.name
		}
	}
	return "other"
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}
