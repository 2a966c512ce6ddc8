package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// look sees what is in the sink, and takes it over if it is good: from an agent
// before this one, or from one that keeps the same sink.
func (a *Agent) look(ctx context.Context, w *work) error {
	raw, err := a.o.Sink.Read(ctx)
	if err != nil {
		return a.lookFailed(ctx, w, fmt.Errorf("reading the token that is there: %w", err))
	}
	w.look = retry{at: time.Now().Add(lookEvery)}
	first, held := !w.started, a.holding()
	w.started = true
	if held != nil && held.Raw == raw {
		a.hold(held)
		return nil
	}
	found, reason := a.judge(raw)
	switch {
	case reason == nil && !w.forced:
		a.o.Log.LogAttrs(ctx, slog.LevelInfo, "the token that is there is kept", slog.Any("token", found.Token),
			slog.Duration("next_in", found.untilRenewal(a.now()).Round(time.Second)))
		a.holds(w, found)
	case first && raw != "":
		why := "another one was asked for"
		if reason != nil {
			why = reason.Error()
		}
		a.o.Log.LogAttrs(ctx, slog.LevelInfo, "the token that is there will be replaced", slog.String("reason", why))
		a.hold(found) // until then
	case held != nil && held.left(a.now()) > 0:
		return a.putBack(ctx, w, held)
	}
	return nil
}

// lookFailed has both looking and fetching wait: what cannot be read cannot be
// written.
func (a *Agent) lookFailed(ctx context.Context, w *work, err error) error {
	err = a.failed(ctx, &w.look, &failure{kindSink, err})
	if w.fetch.at.Before(w.look.at) {
		w.fetch.at = w.look.at
	}
	return err
}

// putBack writes the token again that the sink has lost.
func (a *Agent) putBack(ctx context.Context, w *work, held *lease) error {
	a.o.Log.LogAttrs(ctx, slog.LevelWarn, "somebody else has changed or removed the token; it is put back", slog.Any("token", held.Token))
	if err := a.o.Sink.Write(ctx, held.Token); err != nil {
		a.miss()
		return a.lookFailed(ctx, w, fmt.Errorf("putting the token back: %w", err))
	}
	a.hold(held)
	w.hookDue = a.o.After != nil
	return nil
}

// judge reads a token that was found. If it is for what is wanted, it comes back
// with when its life began, for which there is only the machine's clock to go by.
// The error says why not to keep it.
func (a *Agent) judge(raw string) (*lease, error) {
	if raw == "" {
		return nil, errors.New("there is none")
	}
	t, claims, err := parse(raw)
	if err == nil {
		err = a.o.Source.Fits(claims)
	}
	if err != nil {
		return nil, err
	}
	now := a.now()
	age := now.wall.Sub(t.IssuedAt)
	l := newLease(t, moment{now.mono.Add(-max(age, 0)), now.wall.Add(-max(age, 0))}, t.life())
	switch {
	case age < -skewTold:
		err = fmt.Errorf("it was issued %s from now, if this machine's clock is right", (-age).Round(time.Second))
	case a.o.Source.ValidFor > 0 && t.life() > a.o.Source.ValidFor+backdateMost:
		err = fmt.Errorf("it is valid for %s, and %s is wanted", t.life(), a.o.Source.ValidFor)
	case float64(l.left(now)) <= float64(l.life)*(1-renewAt):
		err = fmt.Errorf("less than a third of its life is left, until %s", t.ExpiresAt.UTC().Format(time.RFC3339))
	}
	if err != nil {
		l.renew = 0
	}
	return l, err
}

// holds notes that the sink has that token. Should its life be very short, the next
// one is not fetched at once all the same.
func (a *Agent) holds(w *work, l *lease) {
	a.hold(l)
	*w = work{started: true, tried: w.tried, look: w.look, hookDue: a.o.After != nil, fetch: retry{at: time.Now().Add(pauseFirst)}}
}

// renew fetches a token, unless one waits to be written, and writes it.
func (a *Agent) renew(ctx context.Context, w *work) error {
	if w.fetched != nil && w.fetched.untilRenewal(a.now()) <= 0 {
		w.fetched = nil // it has grown old while it could not be written
	}
	if w.fetched == nil {
		w.tried = time.Now()
		fetched, err := a.issue(ctx)
		if err != nil {
			a.o.Metrics.renewed(ctx, "failed")
			return a.failed(ctx, &w.fetch, err)
		}
		w.fetched = fetched
	}
	if err := a.o.Sink.Write(ctx, w.fetched.Token); err != nil {
		a.o.Metrics.renewed(ctx, "failed")
		return a.failed(ctx, &w.fetch, &failure{kindSink, fmt.Errorf("writing the new token: %w", err)})
	}
	l := w.fetched
	a.holds(w, l)
	a.o.Metrics.renewed(ctx, "ok")
	a.o.Log.LogAttrs(ctx, slog.LevelInfo, "the token was renewed", slog.Any("token", l.Token),
		slog.Duration("next_in", l.untilRenewal(a.now()).Round(time.Second)))
	return nil
}

// issue fetches a token and checks it.
func (a *Agent) issue(ctx context.Context) (*lease, *failure) {
	call, cancel := context.WithTimeout(ctx, a.patience())
	defer cancel()
	before := a.now()
	raw, err := a.o.Source.Issue(call)
	if err != nil {
		return nil, issueFailure(err)
	}
	t, claims, err := parse(raw)
	if err == nil {
		err = a.o.Source.Fits(claims)
	}
	if err != nil {
		return nil, &failure{kindToken, fmt.Errorf("the server issued a token that was not asked for: %w", err)}
	}
	life, asked := t.life(), a.o.Source.ValidFor
	if asked > 0 {
		life = min(life, asked) // the rest of it is before its issue
	}
	if asked > 0 {
		a.compareClocks(ctx, t, life, before)
	}
	return newLease(t, before, life), nil
}

// patience is how long to wait for a token. The nearer the end of the old one is, the
// sooner an attempt that hangs makes way for the next.
func (a *Agent) patience() time.Duration {
	if held := a.holding(); held != nil {
		return min(a.o.Timeout, max(held.left(a.now())/3, pauseNear))
	}
	return a.o.Timeout
}

// compareClocks reports by how much the machine's clock differs from the server's.
// The token is good by the server's clock, so nothing here stands in its way: what
// matters is the clock of whoever verifies it.
func (a *Agent) compareClocks(ctx context.Context, t Token, life time.Duration, before moment) {
	issued := t.ExpiresAt.Add(-life) // by the server's clock, in whole seconds
	after := a.now()
	offset := time.Duration(0)
	switch {
	case before.wall.After(issued.Add(time.Second)):
		offset = before.wall.Sub(issued)
	case after.wall.Before(issued.Add(-time.Second)):
		offset = after.wall.Sub(issued)
	}
	a.o.Metrics.compared(offset)
	if offset.Abs() < skewTold {
		return
	}
	direction := "ahead"
	if offset < 0 {
		direction = "behind"
	}
	how := []slog.Attr{slog.String("this_clock_is", direction), slog.Duration("by", offset.Abs().Round(time.Second))}
	if after.wall.Before(t.IssuedAt) || !after.wall.Before(t.ExpiresAt) {
		a.o.Log.LogAttrs(ctx, slog.LevelError, "this machine's clock is wrong: by it the new token is not valid, and verifiers on this machine will refuse it", how...)
		return
	}
	a.o.Log.LogAttrs(ctx, slog.LevelWarn, "this machine's clock differs from the server's", how...)
}
