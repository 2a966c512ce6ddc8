package awskms

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/smithy-go/logging"
)

// connect makes a client out of the settings and the SDK's own configuration.
func (o Options) connect(ctx context.Context) (*kms.Client, *http.Client, string, error) {
	base := awshttp.NewBuildableClient().WithDialerOptions(func(d *net.Dialer) { d.Timeout = 5 * time.Second }).
		WithTransportOptions(func(t *http.Transport) {
			t.MaxIdleConnsPerHost = 64
			t.TLSHandshakeTimeout = 5 * time.Second
		})
	load := []func(*config.LoadOptions) error{config.WithHTTPClient(base), config.WithLogger(logging.Nop{})}
	if o.Region != "" {
		load = append(load, config.WithRegion(o.Region))
	}
	if o.Profile != "" {
		load = append(load, config.WithSharedConfigProfile(o.Profile))
	}
	cfg, err := config.LoadDefaultConfig(ctx, load...)
	if err != nil {
		return nil, nil, "", fmt.Errorf("reading the configuration of the AWS SDK: %w", err)
	}
	if cfg.Region == "" {
		return nil, nil, "", errors.New("no AWS Region is configured: use the setting region, or AWS_REGION")
	}
	// The SDK has put its own certificate authorities into the client by now
	// (AWS_CA_BUNDLE). KMS does not redirect, and nobody else may.
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	if built, ok := cfg.HTTPClient.(*awshttp.BuildableClient); ok {
		client.Transport = built.GetTransport()
	}
	if cfg.Credentials != nil {
		cfg.Credentials = aws.NewCredentialsCache(credentials{cfg.Credentials})
	}
	return kms.NewFromConfig(cfg, func(k *kms.Options) {
		k.HTTPClient = client
		k.ClientLogMode = 0 // the environment could have requests logged, with their credentials
		k.Retryer, k.RetryMaxAttempts = aws.NopRetryer{}, 0
		if o.Endpoint != "" {
			k.BaseEndpoint = aws.String(o.Endpoint)
		}
	}), client, cfg.Region, nil
}

// credentials tells failures to get credentials from those of KMS itself.
type credentials struct{ aws.CredentialsProvider }

type credentialsError struct{ error }

func (e *credentialsError) Unwrap() error { return e.error }

func (c credentials) Retrieve(ctx context.Context) (aws.Credentials, error) {
	got, err := c.CredentialsProvider.Retrieve(ctx)
	if err != nil {
		return got, &credentialsError{err}
	}
	return got, nil
}

// operation is one of the client's.
type operation[In, Out any] func(context.Context, *In, ...func(*kms.Options)) (*Out, error)

// call makes one call. op says what was being done, for errors. It is not made
// again, whatever comes of it.
func call[In, Out any](ctx context.Context, b *Backend, op string, do operation[In, Out], in *In) (*Out, error) {
	return callWith(ctx, b, op, do, in)
}

// callAgain is call for what may be asked twice without harm: if the connection
// turns out to have been closed, as idle ones are, the call is made on another one,
// once. Nothing that the service answers has it made again.
func callAgain[In, Out any](ctx context.Context, b *Backend, op string, do operation[In, Out], in *In) (*Out, error) {
	return callWith(ctx, b, op, do, in, func(k *kms.Options) { k.Retryer = onAnotherConnection() })
}

func callWith[In, Out any](ctx context.Context, b *Backend, op string, do operation[In, Out], in *In, with ...func(*kms.Options)) (*Out, error) {
	if err := b.check(ctx); err != nil {
		return nil, err
	}
	within, cancel := context.WithTimeout(ctx, b.opts.RequestTimeout)
	defer cancel()
	out, err := do(within, in, with...)
	if err != nil {
		return nil, explain(ctx, op, err)
	}
	return out, nil
}

func (b *Backend) check(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if b.closed.Load() {
		return errClosed
	}
	return nil
}

func onAnotherConnection() aws.Retryer {
	return retry.NewStandard(func(o *retry.StandardOptions) {
		o.MaxAttempts = 2
		o.RateLimiter = ratelimit.None
		o.Backoff = retry.BackoffDelayerFunc(func(int, error) (time.Duration, error) { return 0, nil })
		o.Retryables = []retry.IsErrorRetryable{retry.IsErrorRetryableFunc(func(err error) aws.Ternary {
			return aws.BoolTernary(connectionLost(err))
		})}
	})
}

// connectionLost says whether a connection that had been there ended before there
// was any answer on it.
func connectionLost(err error) bool {
	return statusOf(err) == 0 && (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) ||
		errors.Is(err, net.ErrClosed) || strings.Contains(err.Error(), "server closed idle connection"))
}
