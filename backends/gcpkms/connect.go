package gcpkms

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	kms "cloud.google.com/go/kms/apiv1"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"github.com/zonemint/zonemint/signer"
)

// link has the client made when it is first needed, and again while that fails:
// looking for credentials may ask a metadata server, which may come up later than
// this process does.
type link struct {
	opts   Options
	client atomic.Pointer[kms.KeyManagementClient]

	mu      sync.Mutex
	attempt *attempt // under way, or the one that succeeded
	closed  bool
}

// attempt is made in a goroutine of its own, and outlives its first caller: the next
// one needs the client as well.
type attempt struct {
	cancel context.CancelFunc
	done   chan struct{} // closed once the rest is there
	client *kms.KeyManagementClient
	source *source // nil, as tokens are, if no credential is sent
	tokens *tokens
	err    error
}

// get returns the client.
func (l *link) get(ctx context.Context) (*kms.KeyManagementClient, error) {
	if c := l.client.Load(); c != nil {
		return c, nil
	}
	a, err := l.join(ctx)
	if err != nil {
		return nil, err
	}
	select {
	case <-a.done:
		return a.client, a.err
	case <-ctx.Done():
		return nil, fail(signer.Unavailable, "a credential for cloud kms was not found in time")
	}
}

// join takes part in the attempt that is under way, or begins one.
func (l *link) join(ctx context.Context) (*attempt, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, errClosed
	}
	if l.attempt != nil {
		return l.attempt, nil
	}
	within, cancel := context.WithTimeout(context.WithoutCancel(ctx), fetchTimeout)
	l.attempt = &attempt{cancel: cancel, done: make(chan struct{})}
	go l.try(within, l.attempt)
	return l.attempt, nil
}

func (l *link) try(ctx context.Context, a *attempt) {
	defer close(a.done)
	defer a.cancel()
	a.err = a.dial(ctx, l.opts)
	l.mu.Lock()
	defer l.mu.Unlock()
	if a.err != nil {
		l.attempt = nil
		return
	}
	l.client.Store(a.client)
}

// close ends an attempt that is under way, and what came of the one that succeeded.
func (l *link) close() {
	l.mu.Lock()
	a := l.attempt
	l.closed = true
	l.mu.Unlock()
	if a == nil {
		return
	}
	a.cancel()
	<-a.done
	if a.tokens != nil {
		a.tokens.close()
		a.source.transport.CloseIdleConnections()
	}
	if a.client != nil {
		_ = a.client.Close() // it says only that it was closed before
	}
}

// dial makes a client. Connections are made, and tokens fetched, when they are needed.
func (a *attempt) dial(ctx context.Context, o Options) error {
	opts, err := o.clientOptions()
	if err != nil {
		return err
	}
	if o.InsecureEndpoint == "" {
		if a.source, err = o.findCredential(ctx); err != nil {
			return err
		}
		a.tokens = &tokens{source: a.source, now: time.Now}
		opts = append(opts, option.WithAuthCredentials(a.tokens.credentials(a.source.found)))
	}
	c, err := kms.NewKeyManagementClient(ctx, opts...)
	if err != nil {
		return fail(signer.Misconfigured, "make a client of cloud kms: %s", words(err.Error()))
	}
	// Nothing is tried again here: each caller knows better when it is worth it, and
	// the SDK would hide what the service said behind its own deadline.
	c.CallOptions = &kms.KeyManagementCallOptions{}
	a.client = c
	return nil
}

func (o Options) clientOptions() ([]option.ClientOption, error) {
	dialOptions := []grpc.DialOption{
		// Without it a connection that died silently takes requests until the kernel
		// gives up, in a quarter of an hour.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
		// The default waits up to two minutes before it sees that the service is back.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
			MinConnectTimeout: 5 * time.Second,
		}),
		grpc.WithDisableServiceConfig(), // nobody's DNS says what is tried again
	}
	opts := []option.ClientOption{
		option.WithUserAgent("zonemint"),
		option.WithGRPCConnectionPool(o.MaxConnections),
		option.WithTelemetryDisabled(),
		option.WithLogger(slog.New(slog.DiscardHandler)), // an environment variable would have it log requests
	}
	if o.InsecureEndpoint != "" {
		dialOptions = append(dialOptions, grpc.WithTransportCredentials(insecure.NewCredentials()))
		opts = append(opts, option.WithEndpoint(o.InsecureEndpoint), option.WithoutAuthentication())
	}
	if o.Endpoint != "" {
		opts = append(opts, option.WithEndpoint(o.Endpoint))
	}
	if o.CAFile != "" {
		cfg, err := o.tlsConfig()
		if err != nil {
			return nil, fail(signer.Misconfigured, "%w", err)
		}
		dialOptions = append(dialOptions, grpc.WithTransportCredentials(credentials.NewTLS(cfg)))
	}
	for _, d := range dialOptions {
		opts = append(opts, option.WithGRPCDialOption(d))
	}
	return opts, nil
}
