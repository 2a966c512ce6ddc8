package gcpkms_test

import (
	"context"
	"encoding/pem"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"

	"github.com/zonemint/zonemint/integration/gcpkmsdouble"
	"github.com/zonemint/zonemint/signer"
)

func answer(code codes.Code, text string, details ...protoadapt.MessageV1) error {
	full, err := status.New(code, text).WithDetails(details...)
	if err != nil {
		panic(err)
	}
	return full.Err()
}

func info(reason string, metadata map[string]string) *errdetails.ErrorInfo {
	return &errdetails.ErrorInfo{Reason: reason, Domain: "googleapis.com", Metadata: metadata}
}

func violation(kind string) *errdetails.PreconditionFailure {
	return &errdetails.PreconditionFailure{Violations: []*errdetails.PreconditionFailure_Violation{{Type: kind}}}
}

// Every kind of answer that the service documents, or was seen to give, has its code.
func TestEveryAnswerHasItsCode(t *testing.T) {
	const v = "projects/p/locations/l/keyRings/r/cryptoKeys/k/cryptoKeyVersions/1"
	for name, c := range map[string]struct {
		err  error
		want signer.Code
	}{
		"canceled by the service":  {answer(codes.Canceled, "canceled"), signer.Unavailable},
		"unknown":                  {answer(codes.Unknown, "?"), signer.Unknown},
		"invalid argument":         {answer(codes.InvalidArgument, "wrong"), signer.Misconfigured},
		"a checksum":               {answer(codes.InvalidArgument, "The checksum in field digest_crc32c did not match the data in field digest."), signer.Corrupt},
		"deadline":                 {answer(codes.DeadlineExceeded, "late"), signer.Unavailable},
		"not found":                {answer(codes.NotFound, "CryptoKeyVersion "+v+" not found."), signer.NotFound},
		"misrouted":                {answer(codes.NotFound, "The request concerns location 'l' but was sent to location 'global'. Either Cloud KMS is not available in 'l' or the request was misrouted."), signer.Misconfigured},
		"already exists":           {answer(codes.AlreadyExists, "CryptoKey k already exists."), signer.Misconfigured},
		"denied":                   {answer(codes.PermissionDenied, "Permission 'cloudkms.cryptoKeyVersions.useToSign' denied on resource 'k' (or it may not exist)."), signer.Denied},
		"denied, with details":     {answer(codes.PermissionDenied, "no", info("IAM_PERMISSION_DENIED", map[string]string{"permission": "cloudkms.cryptoKeys.get"})), signer.Denied},
		"scopes too narrow":        {answer(codes.PermissionDenied, "no", info("ACCESS_TOKEN_SCOPE_INSUFFICIENT", nil)), signer.Denied},
		"service disabled":         {answer(codes.PermissionDenied, "Cloud Key Management Service (KMS) API has not been used in project 1 before or it is disabled.", info("SERVICE_DISABLED", nil)), signer.Misconfigured},
		"billing disabled":         {answer(codes.PermissionDenied, "no", info("BILLING_DISABLED", nil)), signer.Misconfigured},
		"no such project":          {answer(codes.PermissionDenied, "no", info("CONSUMER_INVALID", nil)), signer.Misconfigured},
		"rate":                     {answer(codes.ResourceExhausted, "Quota exceeded", info("RATE_LIMIT_EXCEEDED", nil)), signer.Throttled},
		"rate, bare":               {answer(codes.ResourceExhausted, "Quota exceeded"), signer.Throttled},
		"pending":                  {answer(codes.FailedPrecondition, v+" is not enabled, current state is: PENDING_GENERATION.", violation("KEY_PENDING_GENERATION")), signer.Unavailable},
		"pending, in words only":   {answer(codes.FailedPrecondition, v+" is not enabled, current state is: PENDING_GENERATION."), signer.Unavailable},
		"pending, in details only": {answer(codes.FailedPrecondition, "no", violation("KEY_PENDING_GENERATION")), signer.Unavailable},
		"disabled":                 {answer(codes.FailedPrecondition, v+" is not enabled, current state is: DISABLED."), signer.Denied},
		"scheduled":                {answer(codes.FailedPrecondition, v+" is not enabled, current state is: DESTROY_SCHEDULED."), signer.NotFound},
		"destroyed":                {answer(codes.FailedPrecondition, v+" is not enabled, current state is: DESTROYED.", violation("SOMETHING_ELSE")), signer.NotFound},
		"failed":                   {answer(codes.FailedPrecondition, v+" is not enabled, current state is: GENERATION_FAILED."), signer.NotFound},
		"a state of the future":    {answer(codes.FailedPrecondition, v+" is not enabled, current state is: MELTED."), signer.Misconfigured},
		"another precondition":     {answer(codes.FailedPrecondition, "CryptoKey k has the purpose MAC."), signer.Misconfigured},
		"aborted":                  {answer(codes.Aborted, "again"), signer.Unavailable},
		"out of range":             {answer(codes.OutOfRange, "no"), signer.Misconfigured},
		"unimplemented":            {answer(codes.Unimplemented, "no"), signer.Misconfigured},
		"internal":                 {answer(codes.Internal, "oops"), signer.Unavailable},
		"not in protobuf":          {answer(codes.Internal, "grpc: failed to unmarshal the received message: proto: cannot parse invalid wire-format data"), signer.Corrupt},
		"not as compressed":        {answer(codes.Internal, "grpc: failed to decompress the received message: gzip: invalid header"), signer.Corrupt},
		"a proxy's error":          {answer(codes.Unknown, "unexpected HTTP status code received from server: 500 (Internal Server Error); transport: received unexpected content-type \"text/html\""), signer.Unavailable},
		"a proxy's refusal":        {answer(codes.Unknown, "unexpected HTTP status code received from server: 418 (I'm a teapot)"), signer.Unknown},
		"unavailable":              {answer(codes.Unavailable, "down"), signer.Unavailable},
		"data loss":                {answer(codes.DataLoss, "lost"), signer.Corrupt},
		"unauthenticated":          {answer(codes.Unauthenticated, "Request had invalid authentication credentials.", info("ACCESS_TOKEN_EXPIRED", nil)), signer.Denied},
	} {
		t.Run(name, func(t *testing.T) {
			d := gcpkmsdouble.Start(t, gcpkmsdouble.Options{})
			b, spec := open(t, settings(d)), newSpec(signer.ES256)
			ref, key := made(t, b, spec)
			d.Inject(gcpkmsdouble.Fault{Err: c.err})
			before := d.Calls("")
			if _, err := key.SignJWS(t.Context(), []byte("a.b")); signer.CodeOf(err) != c.want {
				t.Errorf("sign: %v, want %q", err, c.want)
			}
			if n := d.Calls("") - before; n != 1 {
				t.Errorf("sign: %d requests, want 1", n)
			}
			if _, err := signer.Attest(t.Context(), b, spec, ref); signer.CodeOf(err) != c.want {
				t.Errorf("attest: %v, want %q", err, c.want)
			}
		})
	}
}

// What the service, or who speaks in its place, says is quoted in short and without
// what could be used.
func TestWordsOfOthersAreQuotedWithCare(t *testing.T) {
	d := gcpkmsdouble.Start(t, gcpkmsdouble.Options{})
	_, key := made(t, open(t, settings(d)), newSpec(signer.ES256))
	for _, secret := range []string{"ya29.a0AfH6SMBx-secret", "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln", "Bearer abcdef123456", strings.Repeat("QUJD", 30)} {
		heal := d.Inject(gcpkmsdouble.Fault{Err: answer(codes.Internal, "of\nmany\tlines: "+secret+" "+strings.Repeat("long ", 500))})
		_, err := key.SignJWS(t.Context(), []byte("a.b"))
		if err == nil || strings.Contains(err.Error(), secret) || !strings.Contains(err.Error(), "of many lines: [redacted]") || len(err.Error()) > 600 {
			t.Errorf("it says %v", err)
		}
		heal()
	}
	heal := d.Inject(gcpkmsdouble.Fault{Err: answer(codes.PermissionDenied, "Permission 'do this; then that' denied")})
	defer heal()
	_, err := key.SignJWS(t.Context(), []byte("a.b"))
	if got := signer.MissingPermission(err); got != "" {
		t.Errorf("%q is shown as the name of a permission", got)
	}
}

// How the caller's context ended can be told, whatever it ended.
func TestTheCallersEndIsTold(t *testing.T) {
	d := gcpkmsdouble.Start(t, gcpkmsdouble.Options{})
	b, spec := open(t, settings(d)), newSpec(signer.ES256)
	ref, _ := made(t, b, spec)
	h, err := b.Open(t.Context(), spec, ref)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Stall()()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	before := d.Calls("AsymmetricSign")
	go func() {
		_, err := h.Sign(ctx, spec.Algorithm, make([]byte, 32))
		done <- err
	}()
	await(t, func() bool { return d.Calls("AsymmetricSign") > before })
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) || b.Code(err) != signer.Unavailable {
		t.Errorf("%v: %q", err, b.Code(err))
	}
}

// What answers in the service's place, and in no language of its, is told by what gRPC
// makes of it.
func TestAnswersThatAreNone(t *testing.T) {
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		want   signer.Code
	}{
		"an error of a proxy": {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "<html>", http.StatusInternalServerError) }, signer.Unavailable},
		"no protobuf": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/grpc")
			w.Header().Set("Trailer", "Grpc-Status")
			_, _ = w.Write([]byte{0, 0, 0, 0, 3, 0xff, 0xff, 0xff})
			w.Header().Set("Grpc-Status", "0")
		}, signer.Corrupt},
	} {
		d := gcpkmsdouble.Start(t, gcpkmsdouble.Options{TLS: true})
		o, _ := secure(t, d)
		s := httptest.NewUnstartedServer(c.answer)
		s.EnableHTTP2, s.Config.ErrorLog = true, slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
		s.StartTLS()
		t.Cleanup(s.Close)
		o.Endpoint = s.Listener.Addr().String()
		o.CAFile = writeFile(t, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
		if err := find(t.Context(), open(t, o)); signer.CodeOf(err) != c.want {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}
