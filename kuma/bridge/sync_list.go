package bridge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/zonemint/zonemint/kuma"
	"github.com/zonemint/zonemint/kuma/controlplane"
)

// errTooLarge is about a list that does not fit.
var errTooLarge = errors.New("the list is too large for a secret, and stays as it was")

// conflicts is how often a secret that somebody else keeps changing is tried at once.
const conflicts = 5

// list is a list of revoked token IDs, and the keysets that share it.
type list struct {
	ref     kuma.Ref
	keysets []string
}

// listsOf returns the lists of the keysets. GlobalSecrets come first, since on
// Kubernetes they cannot be made where there is a mesh's Secret of their name.
func listsOf(views []view) []list {
	var out []list
	for _, v := range views {
		refs, err := kuma.RevocationSecrets(v.profile, v.mesh)
		if err != nil {
			continue // the mesh of a keyset is a name
		}
		for _, ref := range refs {
			i := slices.IndexFunc(out, func(l list) bool { return l.ref == ref })
			if i < 0 {
				i, out = len(out), append(out, list{ref: ref})
			}
			out[i].keysets = append(out[i].keysets, v.name)
		}
	}
	slices.SortStableFunc(out, func(a, b list) int { return strings.Compare(a.ref.Mesh, b.ref.Mesh) })
	return out
}

// syncList brings a list up to date.
//
// Where the control plane can compare and swap, nothing that somebody else writes is
// lost. Over REST it cannot: what others write between the last read and the write
// is overwritten, so that read comes right before the write, and another one
// after it finds what was written later.
func (p *plane) syncList(ctx context.Context, l list) error {
	asked, confirmed := false, false
	for range conflicts + 2 {
		secret, err := p.Store.Get(ctx, l.ref)
		there := err == nil
		if errors.Is(err, controlplane.ErrTaken) && l.ref.Mesh != "" {
			// The GlobalSecret of that name is the same object, and what control
			// planes read.
			p.note(Item{Secret: l.ref.String(), Outcome: Unchanged})
			return nil
		}
		if err != nil && !errors.Is(err, controlplane.ErrNotFound) {
			return p.listFailed(ctx, l, Item{}, err)
		}
		plan := p.planList(l, there, string(secret.Data))
		if len(plan.ask) > 0 && !asked {
			asked = true
			if err := p.source.check(ctx, l.keysets, plan.ask); err != nil {
				p.log.WarnContext(ctx, "entries that may be of no use any more are kept", slog.String("secret", l.ref.String()), slog.Any("error", err))
			}
			continue // the last read is to be right before the write
		}
		if !there && len(plan.list) > 0 && !confirmed {
			if err := p.confirm(ctx, l.ref); err != nil {
				return p.listFailed(ctx, l, Item{}, err)
			}
			confirmed = true
			continue
		}
		if !there {
			secret = controlplane.Secret{Ref: l.ref, Labels: owned(nil)}
		}
		if again, err := p.apply(ctx, l, plan, secret, there); !again {
			return err
		}
	}
	return p.listFailed(ctx, l, Item{}, fmt.Errorf("%s: %w, time and again", l.ref, controlplane.ErrConflict))
}

// confirm wants a secret that was not found to be missing from the list of all, too,
// before it is made: what a proxy answers for a control plane that restarts must not
// replace what somebody else has in there.
func (p *plane) confirm(ctx context.Context, ref kuma.Ref) error {
	all, err := p.Store.List(ctx, ref.Mesh, ref.Name)
	if errors.Is(err, controlplane.ErrNotFound) && ref.Mesh != "" {
		return nil // neither is there such a mesh
	}
	if err != nil {
		return err
	}
	if slices.ContainsFunc(all, func(s controlplane.Secret) bool { return s.Ref == ref }) {
		return fmt.Errorf("read %s: %w: it says that there is none, and lists it", ref, controlplane.ErrUnavailable)
	}
	return nil
}

func (p *plane) planList(l list, there bool, actual string) listPlan {
	feed, removable := p.source.revoked(l.keysets)
	return planList(listInput{
		there: there, actual: actual, revoked: feed, now: p.now(),
		verdict: func(jti string) verdict {
			if !removable {
				return keep
			}
			return p.source.verdict(l.keysets, jti)
		},
	})
}

// apply does what the plan says, and looks whether it came to be. It says whether
// somebody else was quicker, so that it has to be planned again.
func (p *plane) apply(ctx context.Context, l list, plan listPlan, secret controlplane.Secret, there bool) (again bool, err error) {
	item := Item{
		Secret: l.ref.String(), Entries: len(plan.list), Added: len(plan.added), Removed: len(plan.removed), Others: plan.others,
		Drift: p.listDrift(l, plan, there),
	}
	text, err := plan.list.Encode()
	if err != nil {
		return false, p.listFailed(ctx, l, item, tooLarge(l, err))
	}
	item.Bytes = len(text)
	if item.Outcome = listOutcome(plan, there, secret.Owned()); p.dry || item.Outcome == Unchanged || item.Outcome == Absent {
		p.listIs(l, text, item)
		return false, nil
	}
	if item.Outcome == WouldDelete {
		item.Outcome, err = Deleted, p.Store.Delete(ctx, secret)
	} else {
		secret.Data = []byte(text)
		item.Outcome, err = Written, p.Store.Put(ctx, secret)
	}
	if errors.Is(err, controlplane.ErrConflict) {
		return true, nil
	}
	if err == nil {
		again, err = p.differs(ctx, l.ref, text)
	}
	if err != nil || again {
		return again, p.listFailed(ctx, l, item, err)
	}
	p.listDone(ctx, l, text, item)
	return false, nil
}

// listOutcome says what the plan amounts to. A list that has become empty is deleted:
// an empty one has an empty entry, which tokens without an ID match. Its entries
// were zonemint's, or they would be there still. One that was empty before is left
// to whoever made it.
func listOutcome(plan listPlan, there, owned bool) Outcome {
	switch {
	case len(plan.list) > 0 && plan.change:
		return WouldWrite
	case len(plan.list) > 0:
		return Unchanged
	case there && (len(plan.removed) > 0 || owned):
		return WouldDelete
	case there:
		return Unchanged
	default:
		return Absent
	}
}

// differs says whether a list is not what was written. Nothing there is an empty
// list.
func (p *plane) differs(ctx context.Context, ref kuma.Ref, want string) (bool, error) {
	s, err := p.Store.Get(ctx, ref)
	if errors.Is(err, controlplane.ErrNotFound) {
		return want != "", nil
	}
	return err == nil && string(s.Data) != want, err
}

// listDrift says what somebody else has done to the list that this process had seen
// in order.
func (p *plane) listDrift(l list, plan listPlan, there bool) string {
	var drift []string
	if plan.untidy && there {
		drift = append(drift, "it was not written as control planes read lists")
	}
	last, known := p.lists[l.ref.String()]
	if known && len(plan.added) > 0 {
		had := map[string]bool{}
		for _, jti := range kuma.ParseList(last) {
			had[jti] = true
		}
		lost := 0
		for _, jti := range plan.added {
			if had[jti] {
				lost++
			}
		}
		if lost > 0 {
			drift = append(drift, fmt.Sprintf("%d revoked token IDs had been taken out", lost))
		}
	}
	return strings.Join(drift, "; ")
}

// listIs remembers what was found.
func (p *plane) listIs(l list, text string, item Item) {
	if item.Outcome == Unchanged || item.Outcome == Absent {
		p.lists[l.ref.String()] = text
		p.metrics.list(p.Name, l.ref, item.Entries, item.Bytes)
	}
	p.note(item)
}

func (p *plane) listDone(ctx context.Context, l list, text string, item Item) {
	p.lists[l.ref.String()] = text
	p.metrics.list(p.Name, l.ref, item.Entries, item.Bytes)
	p.metrics.wrote(ctx, p.Name, "revocations", item.Outcome)
	level := slog.LevelInfo
	if item.Drift != "" {
		level = slog.LevelWarn
		p.metrics.repaired(ctx, p.Name)
	}
	p.log.LogAttrs(ctx, level, "list of revoked tokens changed", slog.String("outcome", string(item.Outcome)), slog.String("secret", item.Secret),
		slog.Int("entries", item.Entries), slog.Int("bytes", item.Bytes), slog.Int("added", item.Added),
		slog.Int("removed", item.Removed), slog.Int("others", item.Others), slog.String("drift", item.Drift))
	p.note(item)
}

// listFailed reports an error, if it is one, and returns it.
func (p *plane) listFailed(ctx context.Context, l list, item Item, err error) error {
	if err == nil {
		return nil
	}
	item.Secret, item.Outcome, item.Error = l.ref.String(), Failed, err.Error()
	p.note(item)
	p.metrics.failed(ctx, p.Name, err)
	return err
}

func tooLarge(l list, err error) error {
	if _, ok := errors.AsType[*kuma.TooLargeError](err); ok {
		return fmt.Errorf("%s: %w: %w", l.ref, errTooLarge, err)
	}
	return fmt.Errorf("%s: %w: %w", l.ref, controlplane.ErrForbidden, err)
}
