package bridge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/token"
)

// acknowledgeAgain is how often it is said what a control plane has, also if that
// has not changed: a database that was restored may have forgotten it.
const acknowledgeAgain = 5 * time.Minute

// acknowledgement is what was said of a control plane, and when.
type acknowledgement struct {
	kids []string
	at   time.Time
}

// acknowledge tells zonemint which keys the control plane has, of every zone keyset
// that waits for it. A key counts once it was there for ZoneDelay. Of keysets that
// were lacking a key, what another process has said before is not true any more.
func (p *plane) acknowledge(ctx context.Context, views []view, there []key, lacking map[string]bool) error {
	var errs []error
	for _, v := range views {
		if v.profile == token.ProfileZone && v.problem == nil && len(v.keys) > 0 {
			errs = append(errs, p.acknowledgeKeyset(ctx, v, there, lacking[v.name]))
		}
	}
	return errors.Join(errs...)
}

func (p *plane) acknowledgeKeyset(ctx context.Context, v view, there []key, lacking bool) error {
	if !slices.Contains(v.consumers, p.Name) {
		if !p.noted["consumer "+v.name] {
			p.noted["consumer "+v.name] = true
			p.log.InfoContext(ctx, "the keyset does not wait for this control plane, so nothing is acknowledged", slog.String("keyset", v.name))
		}
		p.note(Item{Keyset: v.name, Outcome: NotAwaited})
		return nil
	}
	now := p.now() // one time for all: keys that arrived together are acknowledged together
	var ready, waiting []string
	for _, k := range there {
		switch {
		case k.keyset != v.name:
		case now.Sub(p.since[k.kid]) >= p.ZoneDelay:
			ready = append(ready, k.kid)
		default:
			waiting = append(waiting, k.kid)
		}
	}
	slices.Sort(ready)
	last, said := p.acks[v.name]
	switch {
	case p.dry || len(ready) == 0 && len(waiting) > 0 && (said && len(last.kids) == 0 || !said && !lacking):
		p.note(Item{Keyset: v.name, Outcome: Waiting, Kids: append(ready, waiting...)})
		return nil
	case said && slices.Equal(last.kids, ready) && now.Sub(last.at) < acknowledgeAgain:
	default:
		if err := p.say(ctx, v.name, ready); err != nil {
			p.note(Item{Keyset: v.name, Outcome: Failed, Kids: ready, Error: err.Error()})
			p.metrics.failed(ctx, p.Name, err)
			return err
		}
	}
	item := Item{Keyset: v.name, Outcome: Acknowledged, Kids: ready}
	if len(waiting) > 0 {
		item.Outcome, item.Kids = Waiting, waiting
	}
	p.note(item)
	return nil
}

// say makes the call.
func (p *plane) say(ctx context.Context, keyset string, kids []string) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := p.source.keys.AcknowledgeKeys(ctx, &pb.AcknowledgeKeysRequest{Keyset: keyset, Consumer: p.Name, Kids: kids})
	if err != nil {
		return fmt.Errorf("acknowledge the keys of keyset %s: %w", keyset, err)
	}
	last, said := p.acks[keyset]
	if !said || !slices.Equal(last.kids, kids) {
		p.log.InfoContext(ctx, "keys acknowledged", slog.String("keyset", keyset), slog.Any("kids", kids))
	}
	p.acks[keyset] = acknowledgement{kids, p.now()}
	return nil
}

// nextAcknowledgement returns in how long a key will have been there for long
// enough to be acknowledged.
func (p *plane) nextAcknowledgement() (time.Duration, bool) {
	var next time.Duration
	found := false
	for kid, at := range p.since {
		acked := false
		for _, a := range p.acks {
			acked = acked || slices.Contains(a.kids, kid)
		}
		d := at.Add(p.ZoneDelay).Sub(p.now())
		if !acked && p.awaited(kid) && (!found || d < next) {
			next, found = d, true
		}
	}
	if next <= 0 {
		next = time.Second // it was due, and could not be said
	}
	return next, found
}

// awaited says whether a keyset with that key waits for this control plane.
func (p *plane) awaited(kid string) bool {
	return slices.ContainsFunc(p.views(), func(v view) bool {
		return v.profile == token.ProfileZone && v.problem == nil && slices.Contains(v.consumers, p.Name) &&
			slices.ContainsFunc(v.keys, func(k key) bool { return k.kid == kid && k.wanted })
	})
}
