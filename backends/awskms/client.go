package awskms

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
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
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// connect makes a client out of the settings and the SDK's own configuration.
func (o Options) connect(ctx context.Context) (*kms.Client, *http.Client, string, error) {
	cfg, err := o.load(ctx)
	if err != nil {
		return nil, nil, "", err
	}
	// The SDK has put its own certificate authorities into the client by now
	// (AWS_CA_BUNDLE). KMS does not redirect, and nobody else may.
	own := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	if built, ok := cfg.HTTPClient.(*awshttp.BuildableClient); ok {
		own.Transport = built.GetTransport()
	}
	client := kms.NewFromConfig(cfg, func(k *kms.Options) {
		k.HTTPClient = plainly{own}
		k.Retryer, k.RetryMaxAttempts = aws.NopRetryer{}, 0
		if k.Credentials != nil {
			k.Credentials = credentials{k.Credentials}
		}
		if o.Endpoint != "" {
			k.BaseEndpoint = aws.String(o.Endpoint)
		}
	})
	return client, own, cfg.Region, rehearse(ctx, client)
}

// load reads the SDK's own configuration.
func (o Options) load(ctx context.Context) (aws.Config, error) {
	base := awshttp.NewBuildableClient().WithDialerOptions(func(d *net.Dialer) { d.Timeout = 5 * time.Second }).
		WithTransportOptions(func(t *http.Transport) {
			t.MaxIdleConnsPerHost = 64
			t.TLSHandshakeTimeout = 5 * time.Second
		})
	load := append(o.forCredentials(base), config.WithLogger(logging.Nop{}))
	if o.Region != "" {
		load = append(load, config.WithRegion(o.Region))
	}
	if o.Profile != "" {
		load = append(load, config.WithSharedConfigProfile(o.Profile))
	}
	cfg, err := config.LoadDefaultConfig(ctx, load...)
	if _, quoted := errors.AsType[*url.Error](err); quoted { // it may have a password in it
		return cfg, errors.New("reading the configuration of the AWS SDK: a URL in it is malformed")
	}
	if err != nil {
		return cfg, fmt.Errorf("reading the configuration of the AWS SDK: %w", err)
	}
	if cfg.Region == "" {
		return cfg, errors.New("no AWS Region is configured: use the setting region, or AWS_REGION")
	}
	return cfg, nil
}

// rehearse has the SDK make up a request, which is not sent: what is wrong with its
// own settings shows at the start, and does not look like an outage later.
func rehearse(ctx context.Context, client *kms.Client) error {
	if base := client.Options().BaseEndpoint; base != nil && !endpointFits(*base) {
		return errors.New("the endpoint that the AWS SDK is configured with (AWS_ENDPOINT_URL_KMS, AWS_ENDPOINT_URL or endpoint_url) " + endpointRule)
	}
	errStop := errors.New("not sent")
	_, err := client.ListKeys(ctx, &kms.ListKeysInput{}, func(k *kms.Options) {
		k.HTTPClient = smithyhttp.ClientDoFunc(func(*http.Request) (*http.Response, error) { return nil, errStop })
		k.Credentials = aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "nobody", SecretAccessKey: "nothing"}, nil
		})
	})
	if errors.Is(err, errStop) || ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("with these settings the AWS SDK makes no request to KMS: %w", root(err))
}

// operation is one of the client's.
type operation[In, Out any] func(context.Context, *In, ...func(*kms.Options)) (*Out, error)

// call makes one call. op says what was being done, for errors. Whatever comes of
// it, it is not made again, unless it is made with [again].
func call[In, Out any](ctx context.Context, b *Backend, op string, do operation[In, Out], in *In, with ...func(*kms.Options)) (*Out, error) {
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

// again is for calls that only read: if the connection turns out to have been closed,
// as idle ones are, the call is made on another one, once. Nothing that the service
// answers has it made again.
func again(k *kms.Options) {
	k.Retryer = retry.NewStandard(func(o *retry.StandardOptions) {
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
	return statusOf(err) == 0 && (brokeOff(err) || strings.Contains(err.Error(), "server closed idle connection"))
}

func brokeOff(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) ||
		errors.Is(err, syscall.EPIPE) || errors.Is(err, net.ErrClosed)
}

// plainly sends bodies that can only be read. Those of the SDK write themselves, and
// end that with an error if the answer comes first: net/http then closes the
// connection under an answer that is longer than what it has read by then
// (https://github.com/aws/aws-sdk-go-v2/issues/2737).
type plainly struct{ *http.Client }

// Do implements [kms.HTTPClient].
func (c plainly) Do(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		r.Body = struct{ io.ReadCloser }{r.Body}
	}
	return c.Client.Do(r) //nolint:gosec // the SDK has made the request
}
