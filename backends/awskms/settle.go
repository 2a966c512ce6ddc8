package awskms

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/zonemint/zonemint/signer"
)

const (
	firstPause = 50 * time.Millisecond
	longPause  = 2 * time.Second
	// publicPatience is how long Public waits for a key that may be new. Create has
	// waited for longer, and a key that is gone is not to hold up a start.
	publicPatience = 2 * time.Second
	// patience is how long Create waits for the key that it has made, and Find for
	// one that is listed, if the window is not shorter. Their callers have little time,
	// and come again.
	patience = 15 * time.Second
)

// settle waits until a new key can be seen and used, so that the first signature
// need not. Whether it comes to that is no matter here: the key is there.
func (b *Backend) settle(ctx context.Context, spec signer.Spec, arn string) {
	h := &handle{backend: b, arn: arn, algorithm: spec.Algorithm}
	began, within := time.Now(), min(b.opts.ConsistencyWindow, patience)
	err := b.patiently(ctx, within, func() error {
		_, err := h.read(ctx)
		return err
	})
	if err == nil {
		err = b.patiently(ctx, within-time.Since(began), func() error { return h.dryRun(ctx) })
	}
	if err != nil {
		b.log.WarnContext(ctx, "a new key in AWS KMS cannot be used yet", slog.String("key", arn), slog.Any("error", err))
	}
}

// would is what a dry run answers if the key would sign.
const would = "DryRunOperationException"

// dryRun asks whether the key would sign. It makes no signature.
func (h *handle) dryRun(ctx context.Context) error {
	in := h.input(make([]byte, max(1, hashSize(h.algorithm))))
	in.DryRun = aws.Bool(true)
	_, err := call(ctx, h.backend, "try out a key in AWS KMS", h.backend.kms.Sign, in, again)
	if f, ok := errors.AsType[*failure](err); ok && f.name == would {
		return nil
	}
	return err
}

// patiently makes a call again while its answer is what a key says that is being
// made, with pauses that grow.
func (b *Backend) patiently(ctx context.Context, within time.Duration, call func() error) error {
	began := time.Now()
	for pause := firstPause; ; pause = min(2*pause, longPause) {
		err := call()
		if f, ok := errors.AsType[*failure](err); !ok || !f.early || time.Since(began)+pause > within {
			return err
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return err
		case <-timer.C:
		}
	}
}

// input is a request for a signature of in.
func (h *handle) input(in []byte) *kms.SignInput {
	kind := types.MessageTypeDigest
	if h.algorithm.Hash() == 0 {
		kind = types.MessageTypeRaw
	}
	return &kms.SignInput{KeyId: &h.arn, Message: in, MessageType: kind, SigningAlgorithm: signingAlgorithm(h.algorithm)}
}

func hashSize(alg signer.Algorithm) int {
	if alg.Hash() == 0 {
		return 0
	}
	return alg.Hash().Size()
}
