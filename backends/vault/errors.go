package vault

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/zonemint/zonemint/signer"
)

// failure is an error whose kind is known where it happens.
type failure struct {
	code   signer.Code
	status int // of HTTP, 0 if there was no answer
	err    error
}

func (e *failure) Error() string { return e.err.Error() }
func (e *failure) Unwrap() error { return e.err }

func fail(code signer.Code, format string, args ...any) error {
	return &failure{code: code, err: fmt.Errorf(format, args...)}
}

var errClosed = fail(signer.Closed, "the vault backend is closed")

// Code implements [signer.Backend].
func (b *Backend) Code(err error) signer.Code { return codeOf(err) }

func codeOf(err error) signer.Code {
	if f, ok := errors.AsType[*failure](err); ok {
		return f.code
	}
	return signer.Unknown
}

// refusal makes an error of an answer that is not 200. What the server says is
// quoted only where it is in the form of its API, shortened, and without the
// secrets that the request held: a proxy on the way may say anything.
func refusal(r request, status int, header http.Header, body []byte) error {
	words := serverWords(body)
	for _, secret := range append(r.secrets, r.token) {
		if secret != "" {
			words = strings.ReplaceAll(words, secret, "[redacted]")
		}
	}
	code := codeFor(status, words)
	if status >= 300 && status < 400 {
		words = "the server redirects to another address, where the token is not sent: " +
			"use the address of the active server, or name the other ones in the setting redirects"
	}
	if words == "" {
		words = http.StatusText(status)
	}
	if after := header.Get("Retry-After"); code == signer.Throttled && len(after) > 0 && len(after) < 40 {
		words += " (retry after " + after + ")"
	}
	return &failure{code, status, fmt.Errorf("%s: vault answers %d: %s", r.op, status, words)}
}

// serverWords reads {"errors": [...]} as one line.
func serverWords(body []byte) string {
	const longest = 300
	var said struct {
		Errors []string `json:"errors"`
	}
	if json.Unmarshal(body, &said) != nil {
		return ""
	}
	words := strings.Join(strings.Fields(strings.Join(said.Errors, "; ")), " ")
	if len(words) > longest {
		words = strings.ToValidUTF8(words[:longest], "") + "…"
	}
	return words
}

// codeFor sorts answers. The words count where the status does not tell: Vault
// and OpenBao say 400 or 500 for keys that are not there, and 404 both for a
// key and for a whole engine that is missing.
func codeFor(status int, words string) signer.Code {
	switch {
	case status == http.StatusTooManyRequests:
		return signer.Throttled
	case status == http.StatusForbidden, status == http.StatusUnauthorized:
		return signer.Denied
	case hasAny(words, "no handler for route", "unsupported path", "unsupported operation"):
		return signer.Misconfigured
	case status == http.StatusNotFound,
		hasAny(words, "signing key not found", "no existing key named", "could not delete key; not found",
			"no such key version", "higher than the latest key version", "soft-deleted key"):
		return signer.NotFound
	case hasAny(words, "less than the minimum encryption key version"):
		return signer.Denied // by a person, who set min_encryption_version
	case status >= 500, status >= 300 && status < 400,
		status == http.StatusRequestTimeout, status == http.StatusPreconditionFailed,
		status == 472, status == 473: // a secondary or a standby that does not serve this
		return signer.Unavailable
	default:
		return signer.Misconfigured
	}
}

func hasAny(text string, parts ...string) bool {
	for _, p := range parts {
		if strings.Contains(text, p) {
			return true
		}
	}
	return false
}

// unanswered makes an error of a request that got no whole answer. ctx is the
// caller's.
func unanswered(ctx context.Context, r request, err error) error {
	code := signer.Unavailable
	var untrusted *tls.CertificateVerificationError
	if errors.As(err, &untrusted) || strings.Contains(err.Error(), "server gave HTTP response to HTTPS client") {
		code = signer.Misconfigured
	}
	if end := ctx.Err(); end != nil && !errors.Is(err, end) {
		err = fmt.Errorf("%w: %w", end, err)
	}
	return &failure{code, 0, fmt.Errorf("%s: %w", r.op, err)}
}

// tokenRefused says whether err is a refusal at all, and whether it was the
// token that is not known or no longer, rather than what it may do.
func tokenRefused(err error) (refused, unknown bool) {
	f, ok := errors.AsType[*failure](err)
	if !ok || f.status != http.StatusForbidden {
		return false, false
	}
	return true, hasAny(f.Error(), "invalid token", "bad token", "token not found")
}
