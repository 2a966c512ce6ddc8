package gcpkms

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"sync"

	"cloud.google.com/go/auth"
	"cloud.google.com/go/compute/metadata"

	"github.com/zonemint/zonemint/signer"
)

// source gets new tokens. It implements [auth.TokenProvider]; its errors are failures.
type source struct {
	transport *http.Transport
	found     *auth.Credentials // what the file says besides; nil without one
	get       func(context.Context, *http.Client) (*auth.Token, error)
}

// Token implements [auth.TokenProvider].
func (s *source) Token(ctx context.Context) (*auth.Token, error) {
	w := &witness{next: s.transport}
	token, err := s.get(ctx, &http.Client{Transport: w})
	switch {
	case err != nil:
		return nil, w.failure(ctx, err)
	case token == nil || token.Value == "":
		return nil, w.failure(ctx, errors.New("it yields no token"))
	default:
		return token, nil
	}
}

// witness sees how requests for a token end. The SDK's errors tell a refusal from a
// server that is down in words alone, with those of the server among them.
type witness struct {
	next http.RoundTripper

	mu     sync.Mutex
	asked  bool
	status int   // of the last answer
	err    error // why there was none
}

// RoundTrip implements [http.RoundTripper].
func (w *witness) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := w.next.RoundTrip(req)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked, w.status, w.err = true, 0, err
	if err == nil {
		w.status = resp.StatusCode
	}
	return resp, err
}

// failure sorts an error by how the last request ended. It quotes nothing that a
// server said.
func (w *witness) failure(ctx context.Context, err error) error {
	const op = "get an access token for cloud kms"
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.asked {
		w.asked, w.status, w.err = ended(err)
	}
	if _, none := errors.AsType[metadata.NotDefinedError](err); none {
		return fail(signer.Misconfigured, "%s: the metadata server answers 404: give this machine a service account", op)
	}
	switch {
	case untrusted(w.err):
		return fail(signer.Misconfigured, "%s: the certificate of the token server is not trusted", op)
	case w.err != nil:
		return fail(signer.Unavailable, "%s: the token server does not answer%s", op, place(w.err))
	case w.status == http.StatusTooManyRequests:
		return fail(signer.Throttled, "%s: the token server answers 429: it is asked too often", op)
	case w.status >= 400 && w.status < 500 && w.status != http.StatusRequestTimeout:
		return fail(signer.Denied, "%s: the token server answers %d: look whether the credential is still valid", op, w.status)
	case w.asked:
		return fail(signer.Unavailable, "%s: the token server answers %d, and not with a token", op, w.status)
	case ctx.Err() != nil:
		return fail(signer.Unavailable, "%s: it took too long", op)
	default:
		return fail(signer.Misconfigured, "%s: the credential cannot be used: %s", op, words(err.Error()))
	}
}

// ended reads from an error how a request ended that had a client of its own: that of
// federation with a certificate.
func ended(err error) (asked bool, code int, cause error) {
	if e, ok := errors.AsType[*auth.Error](err); ok && e.Response != nil {
		return true, e.Response.StatusCode, nil
	}
	if m := regexp.MustCompile(`^credentials: status code ([0-9]{3}): `).FindStringSubmatch(err.Error()); m != nil {
		code, _ = strconv.Atoi(m[1])
		return true, code, nil
	}
	if e, ok := errors.AsType[*url.Error](err); ok {
		return true, 0, e.Err
	}
	return false, 0, nil
}

func untrusted(err error) bool {
	_, refused := errors.AsType[*tls.CertificateVerificationError](err)
	_, unknown := errors.AsType[x509.UnknownAuthorityError](err)
	return refused || unknown
}

// place says where a connection failed, and how, if it did.
func place(err error) string {
	if e, ok := errors.AsType[*net.OpError](err); ok {
		return ": " + words(e.Error())
	}
	return ""
}
