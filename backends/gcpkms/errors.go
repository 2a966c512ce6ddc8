package gcpkms

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"cloud.google.com/go/kms/apiv1/kmspb"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/zonemint/zonemint/signer"
)

// failure is an error whose kind is known where it happens. It implements
// [signer.PermissionError].
type failure struct {
	code       signer.Code
	status     codes.Code // of gRPC; OK if the service did not say anything
	state      kmspb.CryptoKeyVersion_CryptoKeyVersionState
	permission string
	err        error
}

func (e *failure) Error() string      { return e.err.Error() }
func (e *failure) Unwrap() error      { return e.err }
func (e *failure) Permission() string { return e.permission }

func fail(code signer.Code, format string, args ...any) error {
	return &failure{code: code, err: fmt.Errorf(format, args...)}
}

var errClosed = fail(signer.Closed, "the cloud kms backend is closed")

// Code implements [signer.Backend].
func (b *Backend) Code(err error) signer.Code {
	if f, ok := errors.AsType[*failure](err); ok {
		return f.code
	}
	return signer.Unknown
}

// statusOf returns the status of gRPC that the service answered with.
func statusOf(err error) codes.Code {
	if f, ok := errors.AsType[*failure](err); ok {
		return f.status
	}
	return codes.OK
}

// stateOf returns the state for which the service refused a version.
func stateOf(err error) kmspb.CryptoKeyVersion_CryptoKeyVersionState {
	if f, ok := errors.AsType[*failure](err); ok {
		return f.state
	}
	return kmspb.CryptoKeyVersion_CRYPTO_KEY_VERSION_STATE_UNSPECIFIED
}

// refusal makes an error of what the service, or the way to it, said. ctx is the
// caller's.
func refusal(ctx context.Context, op string, err error) error {
	if own, ok := errors.AsType[*failure](err); ok { // of the credential: nobody was asked
		return &failure{code: own.code, err: ending(ctx, fmt.Errorf("%s: %w", op, own))}
	}
	said, ok := status.FromError(err)
	if !ok {
		said = status.FromContextError(err)
	}
	d := detailsOf(said)
	return &failure{
		code: codeFor(said, d), status: said.Code(), state: d.state, permission: d.permission,
		err: ending(ctx, fmt.Errorf("%s: cloud kms answers %s: %s", op, said.Code(), words(said.Message()))),
	}
}

// ending has an error say how the caller's context ended, if it did.
func ending(ctx context.Context, err error) error {
	if end := ctx.Err(); end != nil {
		return fmt.Errorf("%w: %w", end, err)
	}
	return err
}

// details are what an answer says besides its words.
type details struct {
	reason     string // google.api.ErrorReason
	permission string
	state      kmspb.CryptoKeyVersion_CryptoKeyVersionState
}

// detailsOf reads the details, and the words where they say it: some front ends leave
// details out.
func detailsOf(said *status.Status) (d details) {
	state := ""
	for _, detail := range said.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			d.reason = detail.GetReason()
			if said.Code() == codes.PermissionDenied {
				d.permission = permissionName(detail.GetMetadata()["permission"])
			}
		case *errdetails.PreconditionFailure:
			for _, v := range detail.GetViolations() {
				state, _ = strings.CutPrefix(v.GetType(), "KEY_")
			}
		}
	}
	if m := regexp.MustCompile(`^Permission '([^']*)' denied`).FindStringSubmatch(said.Message()); m != nil && d.permission == "" {
		d.permission = permissionName(m[1])
	}
	if _, known := kmspb.CryptoKeyVersion_CryptoKeyVersionState_value[state]; !known {
		if m := regexp.MustCompile(`current state is: ([A-Z_]+)`).FindStringSubmatch(said.Message()); m != nil {
			state = m[1]
		}
	}
	d.state = kmspb.CryptoKeyVersion_CryptoKeyVersionState(kmspb.CryptoKeyVersion_CryptoKeyVersionState_value[state])
	return d
}

// permissionName returns what has the form of a permission, nothing otherwise: it is shown to
// people as the service's own word.
func permissionName(text string) string {
	if regexp.MustCompile(`^[a-zA-Z]+(\.[a-zA-Z]+){1,3}$`).MatchString(text) {
		return text
	}
	return ""
}

// codeFor sorts answers (google.rpc.Code, google.api.ErrorReason).
func codeFor(said *status.Status, d details) signer.Code {
	switch said.Code() {
	case codes.ResourceExhausted:
		return signer.Throttled
	case codes.PermissionDenied:
		return codeOfDenial(d.reason)
	case codes.Unauthenticated:
		return codeOfCredential(said.Message())
	case codes.NotFound:
		if strings.Contains(said.Message(), "misrouted") {
			return signer.Misconfigured // the location does not exist, or a proxy drops headers
		}
		return signer.NotFound
	case codes.FailedPrecondition:
		return codeOfState(d.state)
	case codes.InvalidArgument:
		if strings.HasPrefix(said.Message(), "The checksum in field") {
			return signer.Corrupt // it was not what was sent
		}
		return signer.Misconfigured
	case codes.AlreadyExists, codes.OutOfRange, codes.Unimplemented:
		return signer.Misconfigured
	case codes.DataLoss:
		return signer.Corrupt
	case codes.Unavailable:
		return codeOfConnection(said.Message())
	case codes.DeadlineExceeded, codes.Canceled, codes.Aborted:
		return signer.Unavailable
	case codes.Internal:
		return codeOfInternal(said.Message())
	default:
		return codeOfUnknown(said.Message())
	}
}

// codeOfDenial tells that nobody may do a thing from that we may not.
func codeOfDenial(reason string) signer.Code {
	switch reason {
	case "SERVICE_DISABLED", "BILLING_DISABLED", "CONSUMER_INVALID", "CONSUMER_SUSPENDED", "LOCATION_ORG_POLICY_VIOLATED":
		return signer.Misconfigured
	default:
		return signer.Denied
	}
}

// codeOfCredential tells a refused credential from one that was not sent: it is for
// another universe than the service. That there is no token is known before.
func codeOfCredential(text string) signer.Code {
	if strings.Contains(text, "per-RPC creds failed") {
		return signer.Misconfigured
	}
	return signer.Denied
}

// codeOfInternal tells an answer that is not in the service's language from its own
// words.
func codeOfInternal(text string) signer.Code {
	if strings.HasPrefix(text, "grpc: failed to unmarshal") || strings.HasPrefix(text, "grpc: failed to decompress") {
		return signer.Corrupt
	}
	return signer.Unavailable
}

// codeOfUnknown finds what a proxy says in the service's place ("HTTP to gRPC Status
// Code Mapping" has no code for most answers).
func codeOfUnknown(text string) signer.Code {
	if regexp.MustCompile(`^unexpected HTTP status code received from server: 5[0-9]{2}\b`).MatchString(text) {
		return signer.Unavailable
	}
	return signer.Unknown
}

// codeOfState is of a version that cannot be used.
func codeOfState(state kmspb.CryptoKeyVersion_CryptoKeyVersionState) signer.Code {
	switch state {
	case kmspb.CryptoKeyVersion_PENDING_GENERATION, kmspb.CryptoKeyVersion_PENDING_IMPORT:
		return signer.Unavailable
	case kmspb.CryptoKeyVersion_DISABLED:
		return signer.Denied // by a person, who can enable it
	case kmspb.CryptoKeyVersion_DESTROY_SCHEDULED, kmspb.CryptoKeyVersion_DESTROYED, kmspb.CryptoKeyVersion_GENERATION_FAILED,
		kmspb.CryptoKeyVersion_IMPORT_FAILED, kmspb.CryptoKeyVersion_PENDING_EXTERNAL_DESTRUCTION:
		return signer.NotFound
	default: // such as EXTERNAL_DESTRUCTION_FAILED: whoever has the key still has it
		return signer.Misconfigured
	}
}

// codeOfConnection tells a server that is not there from one that is not to be
// trusted, which does not pass by waiting.
func codeOfConnection(text string) signer.Code {
	for _, sign := range []string{"x509: ", "failed to verify certificate", "first record does not look like a TLS handshake"} {
		if strings.Contains(text, sign) {
			return signer.Misconfigured
		}
	}
	return signer.Unavailable
}

// words makes one short line of what was said, without anything that looks like a
// token, a key or a signature: whoever is on the way may say anything.
func words(text string) string {
	const longest = 400
	text = strings.Join(strings.Fields(text), " ")
	text = regexp.MustCompile(`(ya29\.|eyJ|Bearer )[A-Za-z0-9._~+/=-]+|[A-Za-z0-9+=_-]{80,}`).ReplaceAllString(text, "[redacted]")
	if len(text) > longest {
		text = strings.ToValidUTF8(text[:longest], "") + "…"
	}
	return text
}
