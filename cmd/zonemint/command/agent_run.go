package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/zonemint/zonemint/agent"
	"github.com/zonemint/zonemint/cmd/zonemint/config"
	"github.com/zonemint/zonemint/cmd/zonemint/server"
	"github.com/zonemint/zonemint/service/profile"
)

// run keeps the token fresh until the user ends it, or puts it in its place once.
func (k *keeping) run(cmd *cobra.Command, command []string, wish profile.Wish, source agent.Source) error {
	if err := k.check(cmd, wish, command); err != nil {
		return usage{err}
	}
	if err := k.checkConnection(cmd); err != nil {
		return err
	}
	at, err := k.place.open()
	if err != nil {
		return err
	}
	metrics, err := agent.NewMetrics()
	if err != nil {
		return closing(at, err)
	}
	a := agent.New(agent.Options{
		Source: source, Sink: at.Sink, Log: server.Logger(cmd.ErrOrStderr(), config.Log{Level: "info", Format: k.logFormat.value}),
		After: k.after.hook(command, at.env, cmd.ErrOrStderr()), RemoveExpired: k.removeExpired, Timeout: k.conn.timeout, Metrics: metrics,
	})
	if k.once {
		return closing(at, k.putOnce(cmd, a, at))
	}
	return closing(at, k.keep(cmd, a, metrics))
}

// checkConnection refuses settings that are wrong now, and warns. An API token that
// is not there yet may come.
func (k *keeping) checkConnection(cmd *cobra.Command) error {
	_, err := k.conn.open(cmd.ErrOrStderr())
	if err != nil && k.conn.tokenFile != "" && errors.Is(err, os.ErrNotExist) {
		warn(cmd.ErrOrStderr(), "%s", describe(err))
		return nil
	}
	return err
}

// putOnce gives every attempt a third of the time, so that one that hangs is not the
// only one.
func (k *keeping) putOnce(cmd *cobra.Command, a *agent.Agent, at opened) error {
	most := k.conn.timeout
	k.conn.timeout = max(most/3, time.Second)
	ctx, cancel := context.WithTimeout(cmd.Context(), most)
	defer cancel()
	t, err := a.Once(ctx)
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("there is no token after %s (--timeout): %w", most, err)
	}
	if err != nil {
		return err
	}
	expires := t.ExpiresAt.UTC().Format(time.RFC3339)
	if k.form.value == asJSON {
		text, err := json.MarshalIndent(struct {
			ID        string `json:"jti"`
			KeyID     string `json:"kid"`
			ExpiresAt string `json:"expiresAt"`
			Place     string `json:"place"`
		}{t.ID, t.KeyID, expires, at.name}, "", "  ")
		if err == nil {
			_, err = fmt.Fprintln(cmd.OutOrStdout(), string(text))
		}
		return err
	}
	var out table
	out.add("jti", t.ID)
	out.add("kid", t.KeyID)
	out.add("expires", expires)
	out.add("place", at.name)
	return out.print(cmd.OutOrStdout())
}

func (k *keeping) keep(cmd *cobra.Command, a *agent.Agent, metrics *agent.Metrics) error {
	listener, err := listenPrivate(cmd.Context(), k.metricsListen)
	if err != nil {
		return usage{err}
	}
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	g, ctx := errgroup.WithContext(cmd.Context())
	g.Go(func() error {
		a.Run(ctx)
		return nil
	})
	g.Go(func() error {
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-hangups:
				a.Renew()
			}
		}
	})
	if listener != nil {
		say(cmd.ErrOrStderr(), "health and metrics are at http://%s", listener.Addr())
		g.Go(func() error { return servePrivate(ctx, listener, agent.Handler(a, metrics)) })
	}
	return g.Wait()
}
