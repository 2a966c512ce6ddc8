package awskms

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/endpointcreds"
	"github.com/aws/aws-sdk-go-v2/credentials/processcreds"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/smithy-go"

	"github.com/zonemint/zonemint/signer"
)

// credentialsPatience bounds one request for credentials. Everybody waits for the
// one that is under way, which does not end with the call that has begun it.
const credentialsPatience = 5 * time.Second

// forCredentials has the SDK use base, with an end to every request, for whatever it
// gets credentials from.
func (o Options) forCredentials(base *awshttp.BuildableClient) []func(*config.LoadOptions) error {
	bounded := base.WithTimeout(min(o.RequestTimeout, credentialsPatience))
	return []func(*config.LoadOptions) error{
		config.WithHTTPClient(bounded),
		config.WithEndpointCredentialOptions(func(e *endpointcreds.Options) { e.HTTPClient = bounded }), // it has one of its own
		config.WithWebIdentityRoleCredentialOptions(func(w *stscreds.WebIdentityRoleOptions) {
			if file, ok := w.TokenRetriever.(stscreds.IdentityTokenFile); ok {
				w.TokenRetriever = tokenFile(file)
			}
		}),
	}
}

// tokenFile is [stscreds.IdentityTokenFile] with errors that can be told apart.
type tokenFile string

// GetIdentityToken implements [stscreds.IdentityTokenRetriever].
func (f tokenFile) GetIdentityToken() ([]byte, error) { return os.ReadFile(string(f)) }

// credentials tells failures to get credentials from those of KMS itself.
type credentials struct{ aws.CredentialsProvider }

type credentialsError struct{ error }

func (e *credentialsError) Unwrap() error { return e.error }

func (c credentials) Retrieve(ctx context.Context) (aws.Credentials, error) {
	got, err := c.CredentialsProvider.Retrieve(ctx)
	if err != nil {
		return got, &credentialsError{err}
	}
	return got, nil
}

// noCredentials sorts failures of where credentials come from. What KMS is to that
// service is of no matter. Nothing that anybody has said is quoted, only the parts
// that are known to hold no secret: a helper's output, for one, is the credentials.
func noCredentials(op string, err error) error {
	code, why := whyNoCredentials(err)
	return failf(code, "%s: there are no AWS credentials: %s; give this process a role, or a profile or access key where the AWS SDK looks for them", op, why)
}

func whyNoCredentials(err error) (signer.Code, string) {
	if p, ok := errors.AsType[*processcreds.ProviderError](err); ok {
		return helperFailed(p)
	}
	if status := statusOf(err); status >= http.StatusBadRequest {
		return answered(err, status)
	}
	if code, why := unreached(err); code != signer.Unknown {
		return code, "what has them cannot be reached: " + why
	}
	if _, ok := errors.AsType[*smithy.DeserializationError](err); ok {
		return signer.Unavailable, "the service that has them answers what makes no sense"
	}
	if _, ok := errors.AsType[smithy.APIError](err); ok {
		return answered(err, 0)
	}
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return signer.Denied, fmt.Sprintf("%s %s: %s", e.Op, e.Path, errno(e.Err, "it fails"))
	}
	return signer.Denied, "nothing that the AWS SDK is configured with has any"
}

// helperFailed is for a credential_process. One that has ended by itself may well have
// met an outage, and one whose output is of no use has not.
func helperFailed(err error) (signer.Code, string) {
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		return signer.Unavailable, fmt.Sprintf("the credential_process of the profile fails (%s): run it by hand to see why", e.ProcessState)
	}
	return signer.Denied, "the credential_process of the profile does not print credentials, and nothing besides: run it by hand to see what is wrong"
}

var apiCode = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9._:-]{0,63}$`)

// answered is for an error that the service has answered.
func answered(err error, status int) (signer.Code, string) {
	name := ""
	if api, ok := errors.AsType[smithy.APIError](err); ok && apiCode.MatchString(api.ErrorCode()) {
		name = api.ErrorCode()
	}
	code := codeFor(name, "", status)
	if code != signer.Throttled && code != signer.Unavailable {
		code = signer.Denied
	}
	switch {
	case name == "":
		return code, fmt.Sprintf("the service that has them answers with status %d", status)
	case status == 0:
		return code, "the service that has them answers " + name
	default:
		return code, fmt.Sprintf("the service that has them answers %s, with status %d", name, status)
	}
}
