package gcpkmsdouble

import (
	"fmt"

	"cloud.google.com/go/kms/apiv1/kmspb"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
)

// failed makes an error with details; without if they cannot be encoded.
func failed(code codes.Code, text string, details ...protoadapt.MessageV1) error {
	plain := status.New(code, text)
	if full, err := plain.WithDetails(details...); err == nil {
		return full.Err()
	}
	return plain.Err()
}

func invalid(format string, args ...any) error {
	return status.Errorf(codes.InvalidArgument, format, args...)
}

func notFound(kind, name string) error {
	return status.Errorf(codes.NotFound, "%s %s not found.", kind, name)
}

func alreadyExists(name string) error {
	return status.Errorf(codes.AlreadyExists, "CryptoKey %s already exists.", name)
}

func misrouted(concerns, sent string) error {
	return status.Errorf(codes.NotFound, "The request concerns location '%s' but was sent to location '%s'. "+
		"Either Cloud KMS is not available in '%s' or the request was misrouted. gRPC clients must ensure that "+
		"'x-goog-request-params' is specified in request metadata. See https://cloud.google.com/kms/docs/grpc for more information.",
		concerns, sent, concerns)
}

// notEnabled is the answer to whoever uses a version in another state. Only the type
// KEY_PENDING_GENERATION of the violation is known from reports; the others are
// made up after it.
func notEnabled(name string, state kmspb.CryptoKeyVersion_CryptoKeyVersionState) error {
	return failed(codes.FailedPrecondition, fmt.Sprintf("%s is not enabled, current state is: %s.", name, state),
		&errdetails.PreconditionFailure{Violations: []*errdetails.PreconditionFailure_Violation{{Type: "KEY_" + state.String(), Subject: name}}})
}

// denial is what IAM says; see google.api.ErrorReason, IAM_PERMISSION_DENIED.
func (s *Server) denial(permission, resource string) error {
	text := fmt.Sprintf("Permission '%s' denied on resource '%s' (or it may not exist).", permission, resource)
	if s.opts.BareDenials {
		return failed(codes.PermissionDenied, text)
	}
	return failed(codes.PermissionDenied, text, &errdetails.ErrorInfo{
		Reason: "IAM_PERMISSION_DENIED", Domain: "iam.googleapis.com",
		Metadata: map[string]string{"permission": permission, "resource": resource},
	})
}

// exhausted is the answer over quota; see google.api.ErrorReason, RATE_LIMIT_EXCEEDED.
func exhausted(op string) error {
	metric := "cloudkms.googleapis.com/hsm_asymmetric_requests"
	if op != "AsymmetricSign" {
		metric = "cloudkms.googleapis.com/read_requests"
	}
	text := fmt.Sprintf("Quota exceeded for quota metric '%s' and limit 'PerMinutePerProject' of service 'cloudkms.googleapis.com' "+
		"for consumer 'project_number:1'.", metric)
	return failed(codes.ResourceExhausted, text,
		&errdetails.ErrorInfo{Reason: "RATE_LIMIT_EXCEEDED", Domain: "googleapis.com", Metadata: map[string]string{
			"service": "cloudkms.googleapis.com", "consumer": "projects/1", "quota_metric": metric, "quota_limit": "PerMinutePerProject",
		}},
		&errdetails.QuotaFailure{Violations: []*errdetails.QuotaFailure_Violation{{Subject: "project:1", Description: text}}})
}

func unauthenticated(reason, op string) error {
	return failed(codes.Unauthenticated, "Request had invalid authentication credentials. Expected OAuth 2 access token, "+
		"login cookie or other valid authentication credential. See https://developers.google.com/identity/sign-in/web/devconsole-project.",
		&errdetails.ErrorInfo{Reason: reason, Domain: "googleapis.com", Metadata: map[string]string{
			"service": "cloudkms.googleapis.com", "method": "google.cloud.kms.v1.KeyManagementService." + op,
		}})
}
