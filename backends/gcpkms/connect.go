package gcpkms

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
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

// attempt is made in a goroutine of its own: the SDK looks for credentials without
// heeding a context.
type attempt struct {
	done   chan struct{} // closed once the rest is there
	client *kms.KeyManagementClient
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
		return nil, fail(signer.Unavailable, "find a credential for cloud kms: %w", ctx.Err())
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
	a := &attempt{done: make(chan struct{})}
	l.attempt = a
	go l.try(context.WithoutCancel(ctx), a)
	return a, nil
}

func (l *link) try(ctx context.Context, a *attempt) {
	defer close(a.done)
	a.client, a.err = dial(ctx, l.opts)
	l.mu.Lock()
	defer l.mu.Unlock()
	if a.err != nil {
		l.attempt = nil
		return
	}
	l.client.Store(a.client)
}

// close waits for an attempt that is under way.
func (l *link) close() {
	l.mu.Lock()
	a := l.attempt
	l.closed = true
	l.mu.Unlock()
	if a == nil {
		return
	}
	<-a.done
	if a.client != nil {
		_ = a.client.Close() // it says only that it was closed before
	}
}

// dial makes a client. Connections are made when they are needed.
func dial(ctx context.Context, o Options) (*kms.KeyManagementClient, error) {
	opts, err := o.clientOptions()
	if err != nil {
		return nil, err
	}
	c, err := kms.NewKeyManagementClient(ctx, opts...)
	if err != nil {
		return nil, fail(signer.Misconfigured, "find a credential for cloud kms: %s: set up Application Default Credentials, "+
			"or name a file in the setting credentials_file", words(err.Error()))
	}
	// Nothing is tried again here: each caller knows better when it is worth it, and
	// the SDK would hide what the service said behind its own deadline.
	c.CallOptions = &kms.KeyManagementCallOptions{}
	return c, nil
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
	if o.CredentialsFile != "" {
		credential, err := readCredential(o.CredentialsFile)
		if err != nil {
			return nil, fail(signer.Misconfigured, "the setting credentials_file: %w", err)
		}
		opts = append(opts, credential)
	}
	for _, d := range dialOptions {
		opts = append(opts, option.WithGRPCDialOption(d))
	}
	return opts, nil
}

// readCredential reads a file as it is now, so that one that comes later or is
// replaced before the first success is taken.
func readCredential(file string) (option.ClientOption, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var said struct {
		Type option.CredentialsType `json:"type"`
	}
	if json.Unmarshal(text, &said) != nil {
		return nil, errors.New("it is not JSON")
	}
	if !slices.Contains([]option.CredentialsType{
		option.ServiceAccount, option.AuthorizedUser, option.ImpersonatedServiceAccount, option.ExternalAccount,
	}, said.Type) {
		return nil, fmt.Errorf("it is of the type %.40q, which is none of service_account, authorized_user, impersonated_service_account and external_account", said.Type)
	}
	return option.WithAuthCredentialsJSON(said.Type, text), nil
}
