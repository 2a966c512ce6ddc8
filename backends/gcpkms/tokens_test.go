package gcpkms

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"cloud.google.com/go/auth"

	"github.com/zonemint/zonemint/signer"
)

// tokenServer is a source that takes a second.
type tokenServer struct {
	asked atomic.Int32
	fails atomic.Pointer[error]
	hangs atomic.Bool // until the fetch is ended
}

func (s *tokenServer) Token(ctx context.Context) (*auth.Token, error) {
	s.asked.Add(1)
	if s.hangs.Load() {
		<-ctx.Done()
		return nil, fail(signer.Unavailable, "it took too long")
	}
	time.Sleep(time.Second)
	if err := s.fails.Load(); err != nil {
		return nil, *err
	}
	return &auth.Token{Value: "token", Expiry: time.Now().Add(time.Hour)}, nil
}

func (s *tokenServer) fail(err error) { s.fails.Store(&err) }

// ask returns the end of the token that is handed out.
func ask(t *testing.T, from *tokens) time.Time {
	t.Helper()
	token, err := from.Token(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return token.Expiry
}

// However many wait for a token, it is fetched once, and then again for nobody until it
// is to be renewed.
func TestATokenIsFetchedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &tokenServer{}
		from := &tokens{source: s, now: time.Now}
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() { ask(t, from) })
		}
		wg.Wait()
		time.Sleep(time.Hour - renewBefore - time.Minute)
		ask(t, from)
		if n := s.asked.Load(); n != 1 {
			t.Errorf("it was fetched %d times", n)
		}
	})
}

// A server that refuses is not asked for every token that is wanted, and asked again
// soon.
func TestRefusedTokensAreNotAStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &tokenServer{}
		s.fail(fail(signer.Denied, "no"))
		from := &tokens{source: s, now: time.Now}
		began := time.Now()
		for range 1000 {
			if _, err := from.Token(t.Context()); (&Backend{}).Code(err) != signer.Denied {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Millisecond)
		}
		if n, most := s.asked.Load(), int32(time.Since(began)/(time.Second+failureStands))+fewFailures; n > most {
			t.Errorf("it was asked %d times in %s, want %d at the most", n, time.Since(began), most)
		}
		s.fails.Store(nil)
		time.Sleep(failureStands)
		ask(t, from)
	})
}

// A token is renewed before its end, and nobody waits for that. While it fails, the
// old one is used, and the server is not asked without pause.
func TestATokenIsRenewedBeforeItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &tokenServer{}
		from := &tokens{source: s, now: time.Now}
		first := ask(t, from)
		s.fail(errors.New("down"))
		time.Sleep(time.Until(first.Add(-renewBefore)))
		for range 100 {
			if now := time.Now(); !ask(t, from).Equal(first) || time.Now() != now {
				t.Error("somebody waited, or got no token, while there was one")
			}
			time.Sleep(time.Second)
		}
		if n := s.asked.Load() - 1; n < 1 || n > 11 {
			t.Errorf("it was asked for %d times in 100 s", n)
		}
		time.Sleep(fetchPause)
		s.fails.Store(nil)
		ask(t, from)
		time.Sleep(2 * time.Second)
		if second := ask(t, from); !second.After(first) {
			t.Error("it was not renewed")
		}
		time.Sleep(2 * time.Hour)
		s.fail(fail(signer.Throttled, "later"))
		if _, err := from.Token(t.Context()); (&Backend{}).Code(err) != signer.Throttled {
			t.Errorf("past its end: %v", err)
		}
	})
}

// Callers leave when their contexts end, the first of them as well; a fetch ends
// with its own timeout, and the next one may succeed.
func TestAFetchThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &tokenServer{}
		s.hangs.Store(true)
		from := &tokens{source: s, now: time.Now}
		began := time.Now()
		for range 2 {
			ctx, cancel := context.WithTimeout(t.Context(), 600*time.Millisecond)
			if _, err := from.Token(ctx); (&Backend{}).Code(err) != signer.Unavailable {
				t.Error(err)
			}
			cancel()
		}
		if took := time.Since(began); took != 1200*time.Millisecond || s.asked.Load() != 1 {
			t.Errorf("two callers with 600 ms left after %s, and %d fetches", took, s.asked.Load())
		}
		if _, err := from.Token(t.Context()); (&Backend{}).Code(err) != signer.Unavailable || time.Since(began) != fetchTimeout {
			t.Errorf("%v, after %s", err, time.Since(began))
		}
		s.hangs.Store(false)
		ask(t, from)
	})
}

// Closing ends the fetch, and there are no more tokens then.
func TestClosingEndsAFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &tokenServer{}
		s.hangs.Store(true)
		from := &tokens{source: s, now: time.Now}
		l := &link{attempt: &attempt{cancel: func() {}, done: make(chan struct{}), source: newSource(nil), tokens: from}}
		close(l.attempt.done)
		began := time.Now()
		done := make(chan error, 1)
		go func() {
			_, err := from.Token(t.Context())
			done <- err
		}()
		synctest.Wait()
		l.close()
		if err := <-done; err == nil || !time.Now().Equal(began) {
			t.Errorf("%v, after %s", err, time.Since(began))
		}
		if _, err := from.Token(t.Context()); (&Backend{}).Code(err) != signer.Closed || s.asked.Load() != 1 {
			t.Errorf("%v, %d fetches", err, s.asked.Load())
		}
		l.close()
	})
}

// Credentials that bring an HTTP client of their own are told by the errors of the SDK.
func TestErrorsOfOtherClients(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		want signer.Code
	}{
		"typed":       {fmt.Errorf("auth: %w", &auth.Error{Response: &http.Response{StatusCode: http.StatusTooManyRequests}, Body: []byte("SECRET")}), signer.Throttled},
		"in words":    {errors.New("credentials: status code 503: SECRET"), signer.Unavailable},
		"a refusal":   {errors.New("credentials: status code 403: SECRET"), signer.Denied},
		"unreachable": {fmt.Errorf("x: %w", &url.Error{Op: "Post", URL: "https://SECRET", Err: errors.New("connection refused")}), signer.Unavailable},
		"untrusted":   {&url.Error{Op: "Post", URL: "https://SECRET", Err: &tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}}, signer.Misconfigured},
		"no request":  {errors.New("open /not/there: no such file or directory"), signer.Misconfigured},
	} {
		err := new(witness).failure(t.Context(), c.err)
		if got := (&Backend{}).Code(err); got != c.want || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%s: %v is %q, want %q", name, err, got, c.want)
		}
	}
}

// The server's own bound on one attempt at a key is later, so that the error of this one is
// what is seen.
func TestGenerationTimeoutIsShorterThanTheServers(t *testing.T) {
	const bound = 110 * time.Second
	if got := (Options{}).complete().GenerationTimeout; got+2*fetchTimeout > bound {
		t.Errorf("%s", got)
	}
}
