package gcpkms

import (
	"context"
	"sync"
	"time"

	"cloud.google.com/go/auth"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/zonemint/zonemint/signer"
)

const (
	// fetchTimeout bounds the search for a credential and the fetch of one token, which
	// may take several requests. Callers do not wait longer than they would anyway.
	fetchTimeout = 10 * time.Second
	// renewBefore is how long before its end a token is renewed. Metadata servers
	// have a new one from 5 minutes on.
	renewBefore = 225 * time.Second
	// fetchPause is how long to leave the token server alone while the old token can
	// still be used.
	fetchPause = 10 * time.Second
	// failureStands is how long, after a few in a row, a fetch that failed stands for
	// whoever comes next: a server that refuses is not asked for every signature.
	failureStands = 500 * time.Millisecond
	fewFailures   = 3
	// leastLeft is the time that a token must have left to be sent.
	leastLeft = 10 * time.Second
)

// tokens hands out access tokens, of which it fetches one at a time, in a goroutine of
// its own: whoever waits for it leaves when its context ends, and the token still comes
// for the next one. The SDK's cache holds a lock meanwhile, whatever the context says. It
// implements [auth.TokenProvider].
type tokens struct {
	source auth.TokenProvider // its errors are failures; it is asked by one goroutine at a time
	now    func() time.Time

	mu     sync.Mutex
	token  *auth.Token
	again  time.Time // before that, a token that can be used is not renewed
	fetch  *fetch    // under way
	failed *fetch    // the last one, if it failed
	fails  int       // in a row
	closed bool
}

type fetch struct {
	cancel context.CancelFunc
	done   chan struct{} // closed once the rest is there
	token  *auth.Token
	err    error
	stands time.Time // until when the failure does
}

// Token implements [auth.TokenProvider].
func (t *tokens) Token(ctx context.Context) (*auth.Token, error) {
	token, f := t.current(ctx)
	switch {
	case token != nil:
		return token, nil
	case f == nil:
		return nil, handedOnError{errClosed}
	}
	select {
	case <-f.done:
		if f.err != nil {
			return nil, handedOnError{f.err}
		}
		return f.token, nil
	case <-ctx.Done():
		return nil, handedOnError{fail(signer.Unavailable, "an access token for cloud kms has not come in time")}
	}
}

// current returns the token that can be used, or the fetch to wait for; neither once
// it is closed.
func (t *tokens) current(ctx context.Context) (*auth.Token, *fetch) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	switch {
	case t.closed:
		return nil, nil
	case lasts(t.token, now.Add(renewBefore)):
		return t.token, nil
	case lasts(t.token, now.Add(leastLeft)):
		if t.fetch == nil && !now.Before(t.again) {
			t.begin(ctx)
		}
		return t.token, nil
	case t.fetch == nil && t.fails >= fewFailures && now.Before(t.failed.stands):
		return nil, t.failed
	case t.fetch == nil:
		t.begin(ctx)
	}
	return nil, t.fetch
}

// lasts says whether there is a token that can be used until then.
func lasts(token *auth.Token, until time.Time) bool {
	return token != nil && (token.Expiry.IsZero() || token.Expiry.After(until))
}

// begin starts a fetch, which outlives its first caller and ends with close.
func (t *tokens) begin(ctx context.Context) {
	within, cancel := context.WithTimeout(context.WithoutCancel(ctx), fetchTimeout)
	t.fetch = &fetch{cancel: cancel, done: make(chan struct{})}
	go t.run(within, t.fetch)
}

func (t *tokens) run(ctx context.Context, f *fetch) {
	defer close(f.done)
	defer f.cancel()
	token, err := t.source.Token(ctx)
	t.mu.Lock()
	defer t.mu.Unlock()
	f.token, f.err = token, err
	now := t.now()
	t.fetch, t.again = nil, now.Add(fetchPause)
	if err != nil {
		f.stands = now.Add(failureStands)
		t.failed, t.fails = f, t.fails+1
		return
	}
	t.token, t.failed, t.fails = token, nil, 0
}

// credentials are the tokens, with what a file says besides: whom to bill the quota
// to, and the universe that it is for.
func (t *tokens) credentials(found *auth.Credentials) *auth.Credentials {
	opts := &auth.CredentialsOptions{TokenProvider: t}
	if found != nil {
		opts.JSON = found.JSON()
		opts.UniverseDomainProvider = auth.CredentialsPropertyFunc(found.UniverseDomain)
	}
	return auth.NewCredentials(opts)
}

// close ends a fetch that is under way, and waits for that.
func (t *tokens) close() {
	t.mu.Lock()
	f := t.fetch
	t.closed = true
	t.mu.Unlock()
	if f != nil {
		f.cancel()
		<-f.done
	}
}

// handedOnError is a failure that gRPC returns as it is: from credentials, it makes anything
// without a status Unauthenticated.
type handedOnError struct{ error }

func (e handedOnError) Unwrap() error { return e.error }

// GRPCStatus is what [status.FromError] looks for.
func (e handedOnError) GRPCStatus() *status.Status { return status.New(codes.Unavailable, e.Error()) }
