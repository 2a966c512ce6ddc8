package awskms

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/zonemint/zonemint/signer"
)

// failure is an error whose kind is known where it happens.
type failure struct {
	code  signer.Code
	name  string // that the service has for it
	early bool   // a key that is being made may say so
	err   error
}

func (e *failure) Error() string { return e.err.Error() }
func (e *failure) Unwrap() error { return e.err }

func failf(code signer.Code, format string, args ...any) error {
	return &failure{code: code, err: fmt.Errorf(format, args...)}
}

// permissionError is a refusal that names what was missing; see [signer.PermissionError].
type permissionError struct {
	failure
	permission string
}

func (e *permissionError) Unwrap() error { return &e.failure }

// Permission implements [signer.PermissionError].
func (e *permissionError) Permission() string { return e.permission }

var errClosed = failf(signer.Closed, "the AWS KMS backend is closed")

// Code implements [signer.Backend].
func (b *Backend) Code(err error) signer.Code { return codeOf(err) }

func codeOf(err error) signer.Code {
	if f, ok := errors.AsType[*failure](err); ok {
		return f.code
	}
	return signer.Unknown
}

// explain makes an error of what the SDK returned. ctx is the caller's. The SDK's
// words are not passed on whole: they may quote what an endpoint answered that is
// not KMS.
func explain(ctx context.Context, op string, err error) error {
	if end := ctx.Err(); end != nil {
		return &failure{code: signer.Unavailable, err: fmt.Errorf("%s: %w", op, end)}
	}
	if c, ok := errors.AsType[*credentialsError](err); ok {
		return noCredentials(op, c.error)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return failf(signer.Unavailable, "%s: no answer from AWS KMS within the setting request_timeout: %w", op, context.DeadlineExceeded)
	}
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		return refusal(op, api, err)
	}
	if status := statusOf(err); status != 0 {
		return garbled(op, status, err)
	}
	if code, why := unreached(err); code != signer.Unknown {
		return failf(code, "%s: no answer from AWS KMS: %s", op, why)
	}
	return failf(signer.Misconfigured, "%s: the AWS SDK makes no request of this: see its settings, in the environment and the shared files", op)
}

// statusOf returns the status of the answer, 0 if there was none.
func statusOf(err error) int {
	if r, ok := errors.AsType[*smithyhttp.ResponseError](err); ok {
		if r.Response == nil || r.Response.Response == nil {
			return 0
		}
		return r.HTTPStatusCode()
	}
	type answer interface { // of the endpoint of a container, for example, whose type has no name here
		error
		HTTPStatusCode() int
	}
	if r, ok := errors.AsType[answer](err); ok {
		return r.HTTPStatusCode()
	}
	return 0
}

// root takes off all that is said around an error.
func root(err error) error {
	for errors.Unwrap(err) != nil {
		err = errors.Unwrap(err)
	}
	return err
}

var (
	requestID  = regexp.MustCompile(`^[A-Za-z0-9-]{1,64}$`)
	permission = regexp.MustCompile(`not authorized to perform: ([a-z0-9-]+:[A-Za-z0-9]+)`)
)

// refusal makes an error of one that the service has answered.
func refusal(op string, api smithy.APIError, err error) error {
	request := ""
	if r, ok := errors.AsType[*awshttp.ResponseError](err); ok {
		if id := r.ServiceRequestID(); requestID.MatchString(id) {
			request = " (request " + id + ")"
		}
	}
	name, words := api.ErrorCode(), oneLine(api.ErrorMessage())
	f := failure{code: codeFor(name, words, statusOf(err)), name: name, err: fmt.Errorf("%s: AWS KMS answers %s: %s%s", op, oneLine(name), advice(name, words), request)}
	f.early = name == "NotFoundException" || name == "KMSInvalidStateException" && strings.Contains(words, "creating")
	if m := permission.FindStringSubmatch(words); m != nil && f.code == signer.Denied {
		return &permissionError{f, m[1]}
	}
	return &f
}

// codeFor sorts answers by the names that the API Reference has under "Errors" and
// "Common Errors", and what it does not name by the status.
func codeFor(name, words string, status int) signer.Code {
	switch strings.TrimSuffix(name, "Exception") {
	case "Throttling", "Throttled", "RequestThrottled", "TooManyRequests", "RequestLimitExceeded", "SlowDown", "BandwidthLimitExceeded", "PriorRequestNotComplete":
		return signer.Throttled
	case "NotFound":
		return signer.NotFound
	case "AccessDenied", "NotAuthorized", "UnrecognizedClient", "InvalidClientTokenId", "MissingAuthenticationToken", "InvalidSignature",
		"SignatureDoesNotMatch", "IncompleteSignature", "ExpiredToken", "RequestExpired", "InvalidAccessKeyId", "OptInRequired", "Disabled":
		return signer.Denied // a disabled key is one that somebody has forbidden to use
	case "KMSInvalidState":
		return codeForState(words)
	case "KMSInternal", "KeyUnavailable", "DependencyTimeout", "InternalFailure", "InternalServer", "InternalError", "ServiceUnavailable", "RequestTimeout",
		"IDPCommunicationError": // the last is of the service that has credentials
		return signer.Unavailable
	case "UnsupportedOperation":
		return signer.Unsupported
	case "LimitExceeded": // of keys, aliases or policies: asking less often does not help
		return signer.Misconfigured
	}
	switch {
	case status == http.StatusTooManyRequests:
		return signer.Throttled
	case status >= http.StatusInternalServerError || status == http.StatusRequestTimeout:
		return signer.Unavailable
	case status == http.StatusForbidden || status == http.StatusUnauthorized:
		return signer.Denied
	default:
		return signer.Misconfigured
	}
}

// codeForState goes by the words of "Key states of AWS KMS keys": a key that waits
// for its deletion is gone, and what passes by itself is worth another try.
func codeForState(words string) signer.Code {
	switch {
	case strings.Contains(words, "pending deletion"), strings.Contains(words, "pending replica deletion"):
		return signer.NotFound
	case strings.Contains(words, "creating"), strings.Contains(words, "updating"), strings.Contains(words, "unavailable"):
		return signer.Unavailable
	default:
		return signer.Misconfigured
	}
}

// advice is what to say for the service's words. Those of refused signatures quote
// the request, with the session token in it, and are never passed on.
func advice(name, words string) string {
	switch strings.TrimSuffix(name, "Exception") {
	case "InvalidSignature", "SignatureDoesNotMatch", "IncompleteSignature", "RequestExpired":
		if strings.Contains(words, "expired") || strings.Contains(words, "not yet current") {
			return "the request's time is too far from the service's: set this machine's clock"
		}
		return "the request's signature is refused: see whether the secret access key belongs to the access key, and whether a proxy changes requests"
	case "LimitExceeded":
		return words + "; a quota of the account is used up: have it raised, or delete what nobody needs"
	default:
		return words
	}
}

func oneLine(text string) string {
	const longest = 400
	words := strings.Join(strings.Fields(text), " ")
	if len(words) > longest {
		words = strings.ToValidUTF8(words[:longest], "") + "…"
	}
	return words
}

// garbled is for an answer that is not one of KMS: a proxy on the way may say
// anything, of which only the status counts, and nothing is quoted.
func garbled(op string, status int, err error) error {
	_, broken := errors.AsType[*net.OpError](err)
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed), broken:
		return failf(signer.Unavailable, "%s: the answer of AWS KMS broke off", op)
	case status >= 200 && status < 300:
		return failf(signer.Corrupt, "%s: the answer is not one of AWS KMS; is this its endpoint?", op)
	default:
		return failf(codeFor("", "", status), "%s: status %d, in an answer that is not one of AWS KMS; is this its endpoint?", op, status)
	}
}
