package command

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// listenPrivate listens for health and metrics; nil if it is not wanted.
func listenPrivate(ctx context.Context, addr string) (net.Listener, error) {
	if addr == "" {
		return nil, nil
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("--metrics-listen: %w", err)
	}
	return l, nil
}

// servePrivate serves health and metrics until ctx ends.
func servePrivate(ctx context.Context, l net.Listener, h http.Handler) error {
	s := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 30 * time.Second}
	stop := context.AfterFunc(ctx, func() {
		ctx, cancel := shutdownContext(ctx)
		defer cancel()
		_ = s.Shutdown(ctx) // what is still open then is cut off by the end of the process
	})
	defer stop()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve health and metrics: %w", err)
	}
	return nil
}
