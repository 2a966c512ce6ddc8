package bridge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/zonemint/zonemint/kuma"
	"github.com/zonemint/zonemint/kuma/controlplane"
	"github.com/zonemint/zonemint/token"
)

// lookAgain is how often is looked whether a key that has ended has come back.
const lookAgain = 5 * time.Minute

// keyPrefix begins the names of all secrets of public keys.
func keyPrefix() (string, error) {
	ref, err := kuma.PublicKeySecret("x")
	return strings.TrimSuffix(ref.Name, "x"), err
}

// syncKeys brings the public keys up to date, and acknowledges those that are there
// for long enough.
func (p *plane) syncKeys(ctx context.Context, views []view) error {
	var keys []key
	for _, v := range views {
		if v.profile != token.ProfileZone {
			continue
		}
		for _, k := range v.keys {
			// That a key has ended stays true. That it is trusted may not be any more.
			if !k.wanted || !errors.Is(v.problem, errMissing) {
				keys = append(keys, k)
			}
		}
	}
	if len(keys) == 0 {
		return nil // nothing was said, so nothing is known
	}
	actual, err := p.readKeys(ctx, keys)
	if err != nil {
		p.metrics.failed(ctx, p.Name, err)
		p.note(Item{Secret: "public keys", Outcome: Failed, Error: err.Error()})
		return err
	}
	plan := planKeys(keys, actual)
	p.keysReport(ctx, plan)
	there, lacking, errs := plan.present, map[string]bool{}, []error(nil)
	for _, put := range plan.puts {
		delete(p.since, put.kid) // it was not there, or not as it should be
		lacking[put.keyset] = true
		if silent(errs) {
			continue
		}
		if err := p.putKey(ctx, put); err != nil {
			errs = append(errs, err)
		} else if !p.dry {
			there = append(there, put.key)
		}
	}
	for _, s := range plan.deletes {
		if !silent(errs) {
			errs = append(errs, p.deleteKey(ctx, s))
		}
	}
	p.seen(there)
	return errors.Join(append(errs, p.acknowledge(ctx, views, there, lacking))...)
}

// readKeys returns the secrets of public keys. What a list does not have is looked
// for by its name, keys that have ended too: lists may have those that are marked
// only, and somebody may have put a key there by hand.
func (p *plane) readKeys(ctx context.Context, keys []key) ([]controlplane.Secret, error) {
	prefix, err := keyPrefix()
	if err != nil {
		return nil, err
	}
	actual, err := p.Store.List(ctx, "", prefix)
	if err != nil {
		return nil, err
	}
	for _, k := range keys {
		ref, err := kuma.PublicKeySecret(k.kid)
		if err != nil || slices.ContainsFunc(actual, func(s controlplane.Secret) bool { return s.Ref == ref }) {
			continue
		}
		if !k.wanted && p.now().Sub(p.absent[k.kid]) < lookAgain {
			continue
		}
		s, err := p.Store.Get(ctx, ref)
		switch {
		case err == nil:
			actual = append(actual, s)
		case !errors.Is(err, controlplane.ErrNotFound):
			return nil, err
		case !k.wanted:
			p.absent[k.kid] = p.now()
		}
	}
	return actual, nil
}

// keysReport begins the report about keys anew.
func (p *plane) keysReport(ctx context.Context, plan keyPlan) {
	p.mu.Lock()
	for name, i := range p.items {
		if strings.Contains(i.Secret, "public-key-") || i.Secret == "public keys" {
			delete(p.items, name)
		}
	}
	p.mu.Unlock()
	for _, k := range plan.present {
		ref, _ := kuma.PublicKeySecret(k.kid) // it made a name before
		p.note(Item{Secret: ref.String(), Outcome: Unchanged})
	}
	for _, k := range plan.own {
		p.note(Item{Secret: "public-key-" + k.kid, Outcome: Own})
	}
	for _, ref := range plan.foreign {
		p.note(Item{Secret: ref.String(), Outcome: Foreign})
	}
	for _, r := range plan.refused {
		p.note(Item{Secret: "public-key-" + r.kid, Outcome: Refused, Error: r.err.Error()})
		if !p.noted["refused "+r.kid] {
			p.noted["refused "+r.kid] = true
			p.log.ErrorContext(ctx, "key is not given to the control plane", slog.String("kid", r.kid), slog.Any("error", r.err))
		}
	}
}

// putKey writes a key, and looks whether it came to be.
func (p *plane) putKey(ctx context.Context, put keyPut) error {
	item := Item{Secret: put.secret.Ref.String(), Outcome: WouldWrite, Drift: p.keyDrift(put)}
	if p.dry {
		p.note(item)
		return nil
	}
	err := p.Store.Put(ctx, put.secret)
	if err == nil {
		err = p.holds(ctx, put)
	}
	if err != nil {
		return p.keyFailed(ctx, item, err)
	}
	item.Outcome = Written
	p.metrics.wrote(ctx, p.Name, "key", Written)
	level := slog.LevelInfo
	if item.Drift != "" {
		level = slog.LevelWarn
		p.metrics.repaired(ctx, p.Name)
	}
	p.log.LogAttrs(ctx, level, "public key written", slog.String("kid", put.kid), slog.String("secret", item.Secret), slog.String("drift", item.Drift))
	p.note(item)
	return nil
}

// holds reads a key back.
func (p *plane) holds(ctx context.Context, put keyPut) error {
	s, err := p.Store.Get(ctx, put.secret.Ref)
	if err == nil && string(s.Data) != put.pem {
		return controlplane.ErrConflict
	}
	return err
}

func (p *plane) keyDrift(put keyPut) string {
	switch {
	case put.drift:
		return "it held something else"
	case p.had[put.kid]:
		return "it had been deleted"
	default:
		return ""
	}
}

// lacks looks whether a secret that was deleted is gone.
func (p *plane) lacks(ctx context.Context, ref kuma.Ref) error {
	_, err := p.Store.Get(ctx, ref)
	switch {
	case errors.Is(err, controlplane.ErrNotFound):
		return nil
	case err == nil:
		return fmt.Errorf("delete %s: %w: it says that this is done, and still has it", ref, controlplane.ErrUnavailable)
	default:
		return err
	}
}

func (p *plane) deleteKey(ctx context.Context, s controlplane.Secret) error {
	item := Item{Secret: s.Ref.String(), Outcome: WouldDelete}
	if p.dry {
		p.note(item)
		return nil
	}
	err := p.Store.Delete(ctx, s)
	if err == nil {
		err = p.lacks(ctx, s.Ref)
	}
	if err != nil {
		return p.keyFailed(ctx, item, err)
	}
	item.Outcome = Deleted
	kid, _ := kuma.KeyIDOf(s.Ref)
	delete(p.had, kid)
	p.metrics.wrote(ctx, p.Name, "key", Deleted)
	p.log.InfoContext(ctx, "public key deleted", slog.String("secret", item.Secret))
	p.note(item)
	return nil
}

func (p *plane) keyFailed(ctx context.Context, item Item, err error) error {
	item.Outcome, item.Error = Failed, err.Error()
	p.note(item)
	p.metrics.failed(ctx, p.Name, err)
	return err
}

// seen notes which keys are there. Those that are not were away for a moment at
// least, and their time begins anew.
func (p *plane) seen(there []key) {
	now, since := p.now(), map[string]time.Time{}
	for _, k := range there {
		since[k.kid], p.had[k.kid] = now, true
		if at, ok := p.since[k.kid]; ok {
			since[k.kid] = at
		}
	}
	p.since = since
}
