// Package bridge keeps running global control planes of Kuma and Kong Mesh up to
// date with zonemint: with the public keys of zone tokens and with the lists of
// revoked token IDs. It is a client like any other, with a credential of its own.
//
// Whatever fails is tried again, and everything is compared anew now and then, so
// that a control plane converges after either side was down. What zonemint does not
// say changes nothing: a key is taken out of a control plane only on its word that
// this key has ended, an entry out of a list only on its word that it is of no use
// any more.
package bridge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/zonemint/zonemint/kuma"
	"github.com/zonemint/zonemint/kuma/controlplane"
	v1 "github.com/zonemint/zonemint/proto/zonemint/v1/zonemintv1connect"
)

// Store is the secrets of a control plane. Its errors match those of package
// controlplane.
type Store interface {
	// Get returns a secret.
	Get(ctx context.Context, ref kuma.Ref) (controlplane.Secret, error)
	// List returns the secrets of a mesh, or the GlobalSecrets if it is empty, whose
	// names begin with the prefix, at least those that are marked as zonemint's.
	List(ctx context.Context, mesh, prefix string) ([]controlplane.Secret, error)
	// Put makes a secret, or replaces what was read with that version. A store that
	// cannot tell versions apart replaces whatever is there.
	Put(ctx context.Context, s controlplane.Secret) error
	// Delete deletes a secret, likewise.
	Delete(ctx context.Context, s controlplane.Secret) error
}

// ControlPlane is a global control plane to keep up to date.
type ControlPlane struct {
	// Name is that of the consumer in the policies of keysets.
	Name string
	// Keysets are those that the control plane is given. None: all that the
	// credential may see.
	Keysets []string
	// Store is where its secrets are.
	Store Store
	// ZoneDelay is how long a key must have been there before it is acknowledged,
	// since zones get it later than the global control plane.
	ZoneDelay time.Duration
	// Resync is how often everything is compared.
	Resync time.Duration
}

func (c ControlPlane) wants(keyset string) bool {
	return len(c.Keysets) == 0 || slices.Contains(c.Keysets, keyset)
}

// Config is what a bridge needs.
type Config struct {
	Keys          v1.KeyServiceClient
	Revocations   v1.RevocationServiceClient
	ControlPlanes []ControlPlane
	Log           *slog.Logger
	// DryRun only says what would be done.
	DryRun bool
	// Now is the clock; time.Now if it is nil. Waits are those of package time.
	Now func() time.Time
}

// Bridge keeps control planes up to date. Its methods are safe for concurrent use,
// but only one of Run and Once may be called, and once.
type Bridge struct {
	source  *source
	planes  []*plane
	metrics *metrics
}

// New returns a bridge. It makes no request yet.
func New(c Config) (*Bridge, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	if len(c.ControlPlanes) == 0 {
		return nil, errors.New("bridge: there is no control plane")
	}
	b := &Bridge{}
	b.source = &source{
		keys: c.Keys, revocations: c.Revocations, wanted: b.wanted, changed: b.changed, log: c.Log, now: c.Now,
		keysets: map[string]*keyset{},
	}
	var err error
	if b.metrics, err = newMetrics(b); err != nil {
		return nil, fmt.Errorf("bridge: %w", err)
	}
	for _, cp := range c.ControlPlanes {
		b.planes = append(b.planes, newPlane(cp, b.source, c, b.metrics))
	}
	return b, nil
}

func (b *Bridge) wanted(keyset string) bool {
	return slices.ContainsFunc(b.planes, func(p *plane) bool { return p.wants(keyset) })
}

// changed tells the control planes that there is something to do.
func (b *Bridge) changed(keyset string, what change) {
	for _, p := range b.planes {
		if p.wants(keyset) {
			p.touch(keyset, what)
		}
	}
}

// Run keeps the control planes up to date until ctx ends.
func (b *Bridge) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return b.source.run(ctx) })
	for _, p := range b.planes {
		g.Go(func() error { return p.run(ctx) })
	}
	return g.Wait()
}

// Once brings every control plane up to date once and acknowledges what it then
// has, for which it waits as long as their ZoneDelay. The reports are there also if
// something failed, which they say; an error is about zonemint, or about ctx.
func (b *Bridge) Once(ctx context.Context) ([]Report, error) {
	if err := b.source.load(ctx); err != nil {
		return nil, err
	}
	var g errgroup.Group
	for _, p := range b.planes {
		g.Go(func() error { return p.once(ctx) })
	}
	err := g.Wait()
	return b.Reports(), err
}

// Reports says of every control plane what was found and done when it was compared
// last.
func (b *Bridge) Reports() []Report {
	var out []Report
	for _, p := range b.planes {
		out = append(out, p.status())
	}
	return out
}

// Ready returns why the bridge is not up to date, or nil if it is.
func (b *Bridge) Ready() error {
	var errs []error
	for _, v := range b.source.views() {
		if !v.complete || v.age > staleAfter {
			errs = append(errs, fmt.Errorf("keyset %s: there is no fresh word from its revocation feed", v.name))
		}
	}
	for _, p := range b.planes {
		if err := p.ready(); err != nil {
			errs = append(errs, fmt.Errorf("control plane %s: %w", p.Name, err))
		}
	}
	return errors.Join(errs...)
}

// Metrics serves the bridge's metrics in the format of Prometheus.
func (b *Bridge) Metrics() http.Handler { return b.metrics.handler() }

// Outcome says what became of a secret.
type Outcome string

// The outcomes.
const (
	Unchanged    Outcome = "unchanged"
	Absent       Outcome = "absent" // and should be
	Written      Outcome = "written"
	Deleted      Outcome = "deleted"
	WouldWrite   Outcome = "would write"
	WouldDelete  Outcome = "would delete"
	Foreign      Outcome = "foreign" // somebody else's, left alone
	Own          Outcome = "own"     // a key that the control plane has made itself
	Refused      Outcome = "refused" // a control plane would choke on it
	Acknowledged Outcome = "acknowledged"
	Waiting      Outcome = "waiting" // for the zones, before it is acknowledged
	NotAwaited   Outcome = "not awaited"
	Failed       Outcome = "failed"
)

// Report is what a bridge found in a control plane, and did.
type Report struct {
	ControlPlane string `json:"control_plane"`
	Items        []Item `json:"items"`
}

// Failed says whether something is not as it should be and could not be mended.
func (r Report) Failed() bool {
	return slices.ContainsFunc(r.Items, func(i Item) bool { return i.Error != "" })
}

// Item is about one secret, or about the keys of a keyset as a whole.
type Item struct {
	Secret  string  `json:"secret,omitempty"`
	Keyset  string  `json:"keyset,omitempty"`
	Outcome Outcome `json:"outcome"`
	// Kids are the keys that are acknowledged, or wait for it.
	Kids []string `json:"kids,omitempty"`
	// Of a list: its entries, its size in bytes, what this run added and removed, and
	// how many entries are somebody else's.
	Entries int `json:"entries,omitempty"`
	Bytes   int `json:"bytes,omitempty"`
	Added   int `json:"added,omitempty"`
	Removed int `json:"removed,omitempty"`
	Others  int `json:"others,omitempty"`
	// Drift says what somebody else had done to it. It was repaired if Outcome says
	// so.
	Drift string `json:"drift,omitempty"`
	Error string `json:"error,omitempty"`
}

func (i Item) compare(j Item) int {
	return strings.Compare(i.Keyset+"\x00"+i.Secret, j.Keyset+"\x00"+j.Secret)
}
