package gcpkms

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	kms "cloud.google.com/go/kms/apiv1"
	"cloud.google.com/go/kms/apiv1/kmspb"

	"github.com/zonemint/zonemint/signer"
)

// consistencyWindow covers a request that is still under way when its caller has left.
// A key that was made is there at once: "Cloud KMS resource consistency". Making
// it again is harmless too.
const consistencyWindow = 2 * time.Second

// Backend implements [signer.Backend], [signer.Adopter], [signer.Attester] and
// [signer.Budgeted].
type Backend struct {
	link   *link
	opts   Options
	level  kmspb.ProtectionLevel
	log    *slog.Logger
	closed atomic.Bool
}

var (
	_ signer.Backend  = (*Backend)(nil)
	_ signer.Adopter  = (*Backend)(nil)
	_ signer.Attester = (*Backend)(nil)
	_ signer.Budgeted = (*Backend)(nil)
)

// New checks opts. It asks nobody: that the service is there and lets us in shows
// with the first call.
func New(_ context.Context, o Options) (*Backend, error) {
	o = o.complete()
	if err := o.check(); err != nil {
		return nil, err
	}
	if _, err := o.tlsConfig(); err != nil {
		return nil, err
	}
	return &Backend{link: &link{opts: o}, opts: o, level: o.level(), log: o.Logger}, nil
}

// Traits implements [signer.Backend].
func (b *Backend) Traits() signer.Traits {
	custody := signer.CustodyService
	if b.level == kmspb.ProtectionLevel_HSM {
		custody = signer.CustodyHardware
	}
	return signer.Traits{Algorithms: algorithms(), Remote: true, Custody: custody, ConsistencyWindow: consistencyWindow}
}

// Budget implements [signer.Budgeted].
func (b *Backend) Budget() signer.BudgetOptions {
	return signer.BudgetOptions{PerSecond: b.opts.MaxSignaturesPerSecond, Waiting: b.opts.MaxWaiting}
}

// Close implements [signer.Backend].
func (b *Backend) Close() error {
	b.closed.Store(true)
	b.link.close()
	return nil
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

// call makes one request, within the time that one has.
func call[T any](ctx context.Context, b *Backend, op string, do func(context.Context, *kms.KeyManagementClient) (T, error)) (answer T, _ error) {
	if err := b.check(ctx); err != nil {
		return answer, err
	}
	within, cancel := context.WithTimeout(ctx, b.opts.RequestTimeout)
	defer cancel()
	c, err := b.link.get(within)
	if err == nil {
		answer, err = do(within, c)
	}
	switch {
	case err == nil:
		return answer, nil
	case b.closed.Load():
		return answer, errClosed
	default:
		return answer, refusal(ctx, op, err)
	}
}
