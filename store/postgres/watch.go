package postgres

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/zonemint/zonemint/store"
)

const (
	// watchProbe is how long the listening connection may be quiet before it is
	// asked whether it lives, and how long it may take to answer or to connect. A
	// server that has gone silent is noticed within twice that.
	watchProbe = 5 * time.Second
	// Attempts to connect again are this far apart at least and at most.
	watchFirst, watchLast = 100 * time.Millisecond, 10 * time.Second
)

// watchConfig is for a connection that operators can tell from the others.
func watchConfig(from *pgx.ConnConfig) *pgx.ConnConfig {
	cfg := from.Copy()
	cfg.RuntimeParams["application_name"] += "/watch"
	return cfg
}

// Watch implements [store.Engine]. It has a connection of its own.
func (e *Engine) Watch(ctx context.Context, wake func(store.Topic)) error {
	wait := watchFirst
	for {
		if e.listen(ctx, wake) {
			wait = watchFirst
		}
		// Replicas that lost their server together do not come back together.
		pause := time.NewTimer(wait/2 + rand.N(wait/2)) //nolint:gosec // nobody gains by guessing it
		select {
		case <-ctx.Done():
			pause.Stop()
			return ctx.Err()
		case <-pause.C:
		}
		wait = min(2*wait, watchLast)
	}
}

// listen connects and passes notifications on until the connection breaks or ctx
// ends. It returns whether it had connected. Why the connection broke is not
// said: whatever keeps this one from coming back is heard of from the heartbeat.
func (e *Engine) listen(ctx context.Context, wake func(store.Topic)) bool {
	conn, err := e.connectWatch(ctx)
	if err != nil {
		return false
	}
	defer func() {
		bye, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(bye) // nobody is left to tell
	}()
	for _, topic := range store.Topics() {
		wake(topic)
	}
	for {
		topic, err := next(ctx, conn)
		switch {
		case err != nil:
			return true
		case slices.Contains(store.Topics(), topic): // a later version may know others
			wake(topic)
		}
	}
}

func (e *Engine) connectWatch(ctx context.Context) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, watchProbe)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, e.watch)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Exec(ctx, "LISTEN zonemint"); err != nil {
		return nil, errors.Join(err, conn.Close(ctx))
	}
	return conn, nil
}

// next returns the next notification, or "" if there was none for a while and
// the server has answered since. Without asking, a connection that a firewall
// has forgotten would look like one on which nothing happens.
func next(ctx context.Context, conn *pgx.Conn) (store.Topic, error) {
	quiet, cancel := context.WithTimeout(ctx, watchProbe)
	defer cancel()
	n, err := conn.WaitForNotification(quiet)
	if err == nil {
		return store.Topic(n.Payload), nil
	}
	if ctx.Err() != nil || quiet.Err() == nil {
		return "", err
	}
	answer, cancel := context.WithTimeout(ctx, watchProbe)
	defer cancel()
	return "", conn.Ping(answer)
}
