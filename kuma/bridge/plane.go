package bridge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/zonemint/zonemint/kuma/controlplane"
	"github.com/zonemint/zonemint/token"
)

// plane keeps one control plane up to date. It is the only one in the process that
// writes to it, one thing after the other.
type plane struct {
	ControlPlane
	source  *source
	dry     bool
	log     *slog.Logger
	now     func() time.Time
	metrics *metrics

	mu    sync.Mutex
	todo  work
	items map[string]Item // by secret or keyset
	good  time.Time       // when everything was as it should be, last
	fault error           // why it is not
	wake  chan struct{}

	// What this process has seen there. For the loop only.
	since  map[string]time.Time // from when on a key has been there without a break
	had    map[string]bool      // keys that have been there
	absent map[string]time.Time // when a key that has ended was not there
	lists  map[string]string    // what was in the lists
	acks   map[string]acknowledgement
	noted  map[string]bool // what was logged and need not be again
}

// work says what is to be compared.
type work struct {
	keys     bool
	keysets  map[string]bool // whose lists
	allLists bool
}

func (w work) empty() bool { return !w.keys && !w.allLists && len(w.keysets) == 0 }

func newPlane(cp ControlPlane, s *source, c Config, m *metrics) *plane {
	return &plane{
		ControlPlane: cp, source: s, dry: c.DryRun, now: c.Now, metrics: m,
		log:  c.Log.With(slog.String("control_plane", cp.Name)),
		todo: work{keysets: map[string]bool{}}, items: map[string]Item{}, wake: make(chan struct{}, 1),
		since: map[string]time.Time{}, had: map[string]bool{}, absent: map[string]time.Time{}, lists: map[string]string{},
		acks: map[string]acknowledgement{}, noted: map[string]bool{},
	}
}

// touch notes that something has to be compared, and wakes the loop.
func (p *plane) touch(keyset string, what change) {
	p.mu.Lock()
	p.todo.keys = p.todo.keys || what.keys
	if what.revocations {
		p.todo.keysets[keyset] = true
	}
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default: // it will wake up anyway
	}
}

// all notes that everything has to be compared.
func (p *plane) all() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.todo.keys, p.todo.allLists = true, true
}

func (p *plane) take() work {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.todo
	p.todo = work{keysets: map[string]bool{}}
	return w
}

// putBack notes that what was to be done is not done.
func (p *plane) putBack(w work) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.todo.keys = p.todo.keys || w.keys
	p.todo.allLists = p.todo.allLists || w.allLists
	maps.Copy(p.todo.keysets, w.keysets)
}

// run compares what has changed, and everything now and then, until ctx ends.
func (p *plane) run(ctx context.Context) error {
	var failures backoff
	resync := time.NewTicker(p.Resync)
	defer resync.Stop()
	for {
		w := p.take()
		err := p.round(ctx, w)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			p.putBack(w)
			if !p.pause(ctx, failures.next(err)) {
				return nil
			}
			select {
			case <-resync.C: // what fails must not keep the rest from being compared
				p.all()
			default:
			}
			continue
		}
		failures = 0
		if !p.rest(ctx, resync.C) {
			return nil
		}
	}
}

// pause waits, and says whether ctx has not ended.
func (p *plane) pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// rest waits until there is something to do, and says whether ctx has not ended.
func (p *plane) rest(ctx context.Context, resync <-chan time.Time) bool {
	var due <-chan time.Time
	if d, ok := p.nextAcknowledgement(); ok {
		timer := time.NewTimer(d)
		defer timer.Stop()
		due = timer.C
	}
	select {
	case <-ctx.Done():
		return false
	case <-p.wake:
	case <-resync:
		p.all()
	case <-due:
		p.mu.Lock()
		p.todo.keys = true
		p.mu.Unlock()
	}
	return true
}

// once compares everything, waits for what is to be acknowledged, and compares the
// keys again.
func (p *plane) once(ctx context.Context) error {
	p.all()
	// What fails is in the report.
	_ = p.round(ctx, p.take())
	for range 2 { // the second time for the keys that the first one has mended
		d, ok := p.nextAcknowledgement()
		if !ok || p.dry {
			break
		}
		if !p.pause(ctx, d) {
			return context.Cause(ctx)
		}
		_ = p.round(ctx, work{keys: true})
	}
	_ = p.missing(p.views()) // an acknowledgement has taken its place in the report
	return nil
}

// round compares what w says. Its error is one after which trying again soon makes
// sense; everything else waits for the next time that all is compared.
func (p *plane) round(ctx context.Context, w work) error {
	if w.empty() {
		return nil
	}
	views := p.views()
	var errs, later []error
	sorted := func(err error) {
		switch {
		case err == nil:
		case persistent(err):
			later = append(later, err)
		default:
			errs = append(errs, err)
		}
	}
	// First the lists: a token that is revoked should not wait for anything.
	failed := map[string]bool{}
	for _, l := range listsOf(views) {
		due := w.allLists || slices.ContainsFunc(l.keysets, func(k string) bool { return w.keysets[k] })
		// Without the GlobalSecret, a mesh's Secret on Kubernetes would take its name.
		if !due || failed[l.ref.Name] || silent(errs) {
			continue
		}
		err := p.syncList(ctx, l)
		failed[l.ref.Name] = err != nil && !errors.Is(err, controlplane.ErrTaken)
		sorted(err)
	}
	if w.keys && !silent(errs) {
		sorted(p.syncKeys(ctx, views))
	}
	if w.allLists {
		sorted(p.missing(views))
	}
	p.settle(ctx, errors.Join(append(errs, later...)...), w.allLists && w.keys, p.informed(views))
	return errors.Join(errs...)
}

// informed says whether zonemint has said everything about the keysets.
func (p *plane) informed(views []view) bool {
	return len(views) > 0 && !slices.ContainsFunc(views, func(v view) bool {
		return !v.complete || v.problem != nil || v.profile == token.ProfileZone && len(v.keys) == 0
	})
}

// views returns what is known of the keysets that this control plane is given.
func (p *plane) views() []view {
	return slices.DeleteFunc(p.source.views(), func(v view) bool { return !p.wants(v.name) })
}

// errMissing is about keysets that zonemint does not list.
var errMissing = errors.New("zonemint does not list it, or the API token is not for it")

// missing reports the keysets of which zonemint does not say what there is, and
// returns those that it does not list.
func (p *plane) missing(views []view) error {
	var errs []error
	if p.source.answered() {
		if len(views) == 0 && len(p.Keysets) == 0 {
			errs = append(errs, fmt.Errorf("any keyset: %w", errMissing))
			p.note(Item{Outcome: Failed, Error: "zonemint lists no keyset that the API token may see"})
		}
		for _, name := range p.Keysets {
			if !slices.ContainsFunc(views, func(v view) bool { return v.name == name }) {
				errs = append(errs, fmt.Errorf("keyset %s: %w", name, errMissing))
				p.note(Item{Keyset: name, Outcome: Failed, Error: errMissing.Error()})
			}
		}
	}
	for _, v := range views {
		if err := errors.Join(v.problem, v.feedErr); err != nil {
			p.note(Item{Keyset: v.name, Outcome: Failed, Error: err.Error()})
		}
		if errors.Is(v.problem, errMissing) {
			errs = append(errs, v.problem)
		}
	}
	return errors.Join(errs...)
}

// silent says whether the control plane did not answer, so that everything else
// would wait in vain, each as long. What one secret alone fails with must not hold
// up the others.
func silent(errs []error) bool {
	return slices.ContainsFunc(errs, func(err error) bool { return errors.Is(err, context.DeadlineExceeded) })
}

// persistent says whether trying again soon is of no use: somebody has to do
// something first.
func persistent(err error) bool {
	for _, target := range []error{
		controlplane.ErrNoMesh, controlplane.ErrReadOnly, controlplane.ErrTaken, controlplane.ErrForbidden, errTooLarge, errMissing,
	} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

// settle remembers how a round went.
func (p *plane) settle(ctx context.Context, err error, whole, informed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		if p.fault == nil || p.fault.Error() != err.Error() {
			p.log.ErrorContext(ctx, "the control plane is not up to date", slog.Any("error", err))
		}
		p.fault = err
		return
	}
	if p.fault != nil && !whole {
		return // what failed may not have been looked at
	}
	if p.fault != nil {
		p.log.InfoContext(ctx, "the control plane is up to date again")
	}
	if p.fault = nil; informed {
		p.good = p.now()
	}
}

// note puts an item into the report, in the place of the one before.
func (p *plane) note(i Item) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.items[i.Keyset+"\x00"+i.Secret] = i
}

// status returns the report.
func (p *plane) status() Report {
	p.mu.Lock()
	defer p.mu.Unlock()
	items := slices.SortedFunc(maps.Values(p.items), Item.compare)
	return Report{ControlPlane: p.Name, Items: items}
}

// ready returns why the control plane is not up to date.
func (p *plane) ready() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.fault != nil:
		return p.fault
	case p.good.IsZero():
		return errors.New("it was not compared yet")
	case p.now().Sub(p.good) > 3*p.Resync:
		return fmt.Errorf("it was compared %s ago", p.now().Sub(p.good).Round(time.Second))
	default:
		return nil
	}
}
