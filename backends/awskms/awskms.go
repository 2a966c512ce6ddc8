// Package awskms is the signing backend for private keys in AWS Key Management
// Service.
//
// Every serial is a KMS key of its own, and its reference pins the key's ARN.
// Aliases can be moved to another key by whoever may do so, so that they are a name
// for people and nothing here depends on them: a key that is adopted by its alias is
// pinned by the ARN that the alias had then, and every signature says which ARN has
// made it.
//
// KMS cannot be asked for a key by a label. CreateKey stores the label in the key's
// description, in the same step that makes it, and Find and List read the
// descriptions of all keys of the account in the Region. That is slow, one call for
// each key that was not seen before, but it cannot miss a key: an alias is made
// in a second call, which a crash can come before, and tags become visible later
// than the key they belong to. Tags hold the same, for policies, bills and people.
//
// What is said here of KMS is in its API Reference and its Developer Guide, above
// all in "Key states of AWS KMS keys", "AWS KMS eventual consistency", "Throttling
// AWS KMS requests" and the pages of CreateKey, Sign, GetKeyLastUsage and
// ScheduleKeyDeletion.
package awskms

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/aws/aws-sdk-go-v2/service/kms"

	"github.com/zonemint/zonemint/signer"
)

// Backend implements [signer.Backend].
type Backend struct {
	kms    *kms.Client
	http   *http.Client
	region string
	opts   Options
	policy string // of new keys; empty for the service's default
	log    *slog.Logger

	// foreign has the IDs of keys that were seen and are not zonemint's. A
	// description is there from the beginning, so a key does not become one.
	foreign sync.Map
	closed  atomic.Bool
}

var (
	_ signer.Backend  = (*Backend)(nil)
	_ signer.Adopter  = (*Backend)(nil)
	_ signer.Budgeted = (*Backend)(nil)
)

// New checks opts and reads the SDK's ordinary configuration: the environment and
// the shared files. It makes no call, neither to KMS nor for credentials, so a
// service that is down is no error.
func New(ctx context.Context, opts Options) (*Backend, error) {
	opts = opts.complete()
	if err := opts.check(); err != nil {
		return nil, err
	}
	policy, err := opts.readPolicy()
	if err != nil {
		return nil, err
	}
	client, transport, region, err := opts.connect(ctx)
	if err != nil {
		return nil, err
	}
	return &Backend{kms: client, http: transport, region: region, opts: opts, policy: policy, log: opts.Logger}, nil
}

// Traits implements [signer.Backend]. Keys that KMS makes are made in its hardware
// and do not leave it.
func (b *Backend) Traits() signer.Traits {
	return signer.Traits{Algorithms: signer.Algorithms(), Remote: true, Custody: signer.CustodyHardware, ConsistencyWindow: b.opts.ConsistencyWindow}
}

// Budget implements [signer.Budgeted].
func (b *Backend) Budget() signer.BudgetOptions {
	return signer.BudgetOptions{PerSecond: b.opts.MaxSignaturesPerSecond, Waiting: b.opts.MaxWaiting}
}

// Close implements [signer.Backend]. Calls under way are not cut off.
func (b *Backend) Close() error {
	if b.closed.CompareAndSwap(false, true) {
		b.http.CloseIdleConnections()
	}
	return nil
}
