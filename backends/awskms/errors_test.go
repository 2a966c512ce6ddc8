package awskms_test

import (
	"context"
	"errors"
	"io"
	"log"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/zonemint/zonemint/backends/awskms"
	"github.com/zonemint/zonemint/integration/awskmsdouble"
	"github.com/zonemint/zonemint/signer"
)

// Every error that the API Reference documents for the calls that are made, and those
// that all AWS services share, ends in a code, and its name reaches whoever reads it.
func TestCodes(t *testing.T) {
	s := start(t)
	b := open(t, options(s))
	h, _, _ := handle(t, b, signer.ES256)
	for _, c := range []struct {
		name, message string
		status        int
		want          signer.Code
	}{
		{"ThrottlingException", "You have exceeded the rate at which you may call KMS.", 400, signer.Throttled},
		{"Throttling", "Rate exceeded", 400, signer.Throttled},
		{"RequestLimitExceeded", "", 503, signer.Throttled},
		{"TooManyRequestsException", "", 429, signer.Throttled},
		{"SomethingNew", "", 429, signer.Throttled},
		{"LimitExceededException", "You have reached the quota", 400, signer.Misconfigured},
		{"NotFoundException", "Key does not exist", 400, signer.NotFound},
		{"KMSInvalidStateException", "arn:aws:kms:x is pending deletion.", 400, signer.NotFound},
		{"KMSInvalidStateException", "arn:aws:kms:x is pending replica deletion.", 400, signer.NotFound},
		{"KMSInvalidStateException", "arn:aws:kms:x is pending import.", 400, signer.Misconfigured},
		{"KMSInvalidStateException", "arn:aws:kms:x is creating.", 400, signer.Unavailable},
		{"KMSInvalidStateException", "arn:aws:kms:x is updating.", 400, signer.Unavailable},
		{"KMSInvalidStateException", "arn:aws:kms:x is unavailable.", 400, signer.Unavailable},
		{"DisabledException", "arn:aws:kms:x is disabled.", 400, signer.Denied},
		{"AccessDeniedException", "User: x is not authorized to perform: kms:Sign on resource: y", 400, signer.Denied},
		{"NotAuthorized", "", 400, signer.Denied},
		{"UnrecognizedClientException", "The security token included in the request is invalid.", 400, signer.Denied},
		{"InvalidClientTokenId", "", 403, signer.Denied},
		{"MissingAuthenticationTokenException", "", 403, signer.Denied},
		{"ExpiredTokenException", "", 400, signer.Denied},
		{"InvalidSignatureException", "", 400, signer.Denied},
		{"IncompleteSignatureException", "", 400, signer.Denied},
		{"OptInRequired", "", 403, signer.Denied},
		{"RequestExpired", "", 400, signer.Denied},
		{"KMSInternalException", "", 500, signer.Unavailable},
		{"KeyUnavailableException", "", 500, signer.Unavailable},
		{"DependencyTimeoutException", "", 503, signer.Unavailable},
		{"InternalFailure", "", 500, signer.Unavailable},
		{"ServiceUnavailable", "", 503, signer.Unavailable},
		{"SomethingNewer", "", 500, signer.Unavailable},
		{"InvalidKeyUsageException", "", 400, signer.Misconfigured},
		{"InvalidArnException", "", 400, signer.Misconfigured},
		{"InvalidGrantTokenException", "", 400, signer.Misconfigured},
		{"InvalidMarkerException", "", 400, signer.Misconfigured},
		{"InvalidAliasNameException", "", 400, signer.Misconfigured},
		{"AlreadyExistsException", "", 400, signer.Misconfigured},
		{"MalformedPolicyDocumentException", "", 400, signer.Misconfigured},
		{"TagException", "", 400, signer.Misconfigured},
		{"ConflictException", "", 400, signer.Misconfigured},
		{"ValidationException", "1 validation error detected", 400, signer.Misconfigured},
		{"SerializationException", "", 400, signer.Misconfigured},
		{"UnknownOperationException", "", 400, signer.Misconfigured},
		{"UnsupportedOperationException", "", 400, signer.Unsupported},
	} {
		before := s.Calls()["Sign"]
		s.Inject(awskmsdouble.Fault{Op: "Sign", Error: &awskmsdouble.Exception{Type: c.name, Message: c.message, Status: c.status}})
		_, err := sign(t.Context(), h, signer.ES256)
		if err == nil || b.Code(err) != c.want || !strings.Contains(err.Error(), c.name) {
			t.Errorf("%s (%s): %q, %v; want %q", c.name, c.message, b.Code(err), err, c.want)
		}
		if n := s.Calls()["Sign"] - before; n != 1 {
			t.Errorf("%s: %d calls, want 1", c.name, n)
		}
	}
	if _, err := sign(t.Context(), h, signer.ES256); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// What is not KMS at all is not quoted, and sorted by its status.
func TestAnswersOfOthers(t *testing.T) {
	s := start(t)
	b := open(t, options(s))
	h, _, _ := handle(t, b, signer.ES256)
	for _, c := range []struct {
		status int
		body   string
		want   signer.Code
	}{
		{200, "<html>welcome hunter2</html>", signer.Corrupt},
		{200, `{"KeyId": "arn:aws:k`, signer.Corrupt},
		{200, "", signer.Corrupt},
		{200, `{"KeyId": 7}`, signer.Corrupt},
		{302, "<html>hunter2</html>", signer.Misconfigured},
		{403, "<html>hunter2</html>", signer.Denied},
		{404, "hunter2", signer.Misconfigured},
		{429, "hunter2", signer.Throttled},
		{502, "<html>hunter2</html>", signer.Unavailable},
		{504, "", signer.Unavailable},
	} {
		s.Inject(awskmsdouble.Fault{Op: "Sign", Status: c.status, Body: c.body})
		_, err := sign(t.Context(), h, signer.ES256)
		if err == nil || b.Code(err) != c.want || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%d %q: %q, %v; want %q", c.status, c.body, b.Code(err), err, c.want)
		}
	}
}

// A connection that ends within the answer is none of the service's words.
func TestAnswerBreaksOff(t *testing.T) {
	s := start(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "1000")
		_, _ = w.Write([]byte(`{"Keys": [`))
	}))
	t.Cleanup(server.Close)
	o := options(s)
	o.Endpoint = server.URL
	if _, err := signer.Find(t.Context(), open(t, o), newSpec(signer.ES256)); signer.CodeOf(err) != signer.Unavailable || !strings.Contains(err.Error(), "broke off") {
		t.Errorf("%v", err)
	}
}

// A refusal says which permission was missing, in the service's words.
func TestDeniedNamesThePermission(t *testing.T) {
	s := start(t)
	b := open(t, options(s))
	h, _, _ := handle(t, b, signer.ES256)
	s.Deny("kms:Sign")
	_, err := sign(t.Context(), h, signer.ES256)
	if b.Code(err) != signer.Denied || signer.MissingPermission(err) != "kms:Sign" {
		t.Errorf("%v; missing: %q", err, signer.MissingPermission(err))
	}
}

// The service quotes the whole request where a signature is wrong. Nobody else does.
func TestRefusedSignaturesAreNotQuoted(t *testing.T) {
	s, err := awskmsdouble.Start(awskmsdouble.Options{SessionToken: "FwoGZXIvYXdzEhunter2"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	for name, value := range s.Env() {
		t.Setenv(name, value)
	}
	t.Setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
	b := open(t, options(s))
	_, err = signer.Create(t.Context(), b, newSpec(signer.ES256))
	if signer.CodeOf(err) != signer.Denied || !strings.Contains(err.Error(), "secret access key") {
		t.Errorf("%v", err)
	}
	for _, secret := range []string{"hunter2", "not-the-secret", "AWS4-HMAC", "x-amz"} {
		if strings.Contains(err.Error(), secret) {
			t.Errorf("the error quotes %s: %v", secret, err)
		}
	}
}

// A clock that is wrong is named as such.
func TestSkewedClock(t *testing.T) {
	var skew time.Duration
	s, err := awskmsdouble.Start(awskmsdouble.Options{Now: func() time.Time { return time.Now().Add(skew) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	for name, value := range s.Env() {
		t.Setenv(name, value)
	}
	for _, skew = range []time.Duration{-time.Hour, time.Hour} {
		_, err = signer.Find(t.Context(), open(t, options(s)), newSpec(signer.ES256))
		if signer.CodeOf(err) != signer.Denied || !strings.Contains(err.Error(), "clock") {
			t.Errorf("%v: %v", skew, err)
		}
	}
}

func TestNoCredentials(t *testing.T) {
	s := start(t)
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} {
		t.Setenv(name, "")
	}
	b := open(t, options(s))
	_, err := signer.Find(t.Context(), b, newSpec(signer.ES256))
	if signer.CodeOf(err) != signer.Denied || !strings.Contains(err.Error(), "no AWS credentials") {
		t.Errorf("%v", err)
	}
	t.Setenv("AWS_ROLE_ARN", "arn:aws:iam::111122223333:role/mesh")
	t.Setenv("AWS_WEB_IDENTITY_TOKEN_FILE", "/nowhere/token")
	_, err = signer.Find(t.Context(), open(t, options(s)), newSpec(signer.ES256))
	if signer.CodeOf(err) != signer.Denied || !strings.Contains(err.Error(), "/nowhere/token") {
		t.Errorf("%v", err)
	}
	if n := len(s.Calls()); n != 0 {
		t.Errorf("%d calls without credentials", n)
	}
}

// What the service that has credentials answers is not taken for an answer of KMS: a
// role that is not found is no key that is not found.
func TestRefusedRole(t *testing.T) {
	s := start(t)
	for status, want := range map[int]signer.Code{403: signer.Denied, 404: signer.Denied, 429: signer.Throttled, 503: signer.Unavailable} {
		sts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(status)
			_, _ = w.Write([]byte(`<ErrorResponse><Error><Code>Strange</Code><Message>hunter2</Message></Error></ErrorResponse>`))
		}))
		t.Setenv("AWS_ACCESS_KEY_ID", "")
		t.Setenv("AWS_SECRET_ACCESS_KEY", "")
		t.Setenv("AWS_ROLE_ARN", "arn:aws:iam::111122223333:role/mesh")
		t.Setenv("AWS_WEB_IDENTITY_TOKEN_FILE", writeFile(t, "a.b.hunter2"))
		t.Setenv("AWS_ENDPOINT_URL_STS", sts.URL)
		t.Setenv("AWS_MAX_ATTEMPTS", "1")
		_, err := signer.Find(t.Context(), open(t, options(s)), newSpec(signer.ES256))
		if signer.CodeOf(err) != want || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%d: %v, want %q", status, err, want)
		}
		sts.Close()
	}
}

func TestDeadlines(t *testing.T) {
	s := start(t)
	o := options(s)
	o.RequestTimeout = 50 * time.Millisecond
	b := open(t, options(s))
	_, spec, ref := handle(t, b, signer.ES256)
	hasty, err := open(t, o).Open(t.Context(), spec, ref)
	if err != nil {
		t.Fatal(err)
	}
	resume := s.Stall()
	defer resume()
	_, err = sign(t.Context(), hasty, signer.ES256)
	if b.Code(err) != signer.Unavailable || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "request_timeout") {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := sign(ctx, hasty, signer.ES256); b.Code(err) != signer.Unavailable || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}

// A service that is down is Unavailable, and a start is none of its business.
func TestNobodyListens(t *testing.T) {
	s := start(t)
	o := options(s)
	_ = s.Close()
	b := open(t, o)
	if _, err := signer.Find(t.Context(), b, newSpec(signer.ES256)); signer.CodeOf(err) != signer.Unavailable || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("%v", err)
	}
}

func TestUntrustedCertificate(t *testing.T) {
	s := start(t)
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // it says what the client does not like
	server.StartTLS()
	t.Cleanup(server.Close)
	o := options(s)
	o.Endpoint = server.URL
	if _, err := signer.Find(t.Context(), open(t, o), newSpec(signer.ES256)); signer.CodeOf(err) != signer.Misconfigured {
		t.Errorf("%v", err)
	}
	o.Endpoint = "https://" + strings.TrimPrefix(s.URL(), "http://")
	if _, err := signer.Find(t.Context(), open(t, o), newSpec(signer.ES256)); signer.CodeOf(err) != signer.Misconfigured {
		t.Errorf("%v", err)
	}
}

func TestSettings(t *testing.T) {
	s := start(t)
	for name, c := range map[string]struct {
		change func(*awskms.Options)
		want   string
	}{
		"no region":           {func(o *awskms.Options) { o.Region = "" }, "AWS_REGION"},
		"no region's name":    {func(o *awskms.Options) { o.Region = "Frankfurt" }, "setting region"},
		"http to elsewhere":   {func(o *awskms.Options) { o.Endpoint = "http://kms.example.com" }, "setting endpoint"},
		"a password":          {func(o *awskms.Options) { o.Endpoint = "https://me:hunter2@kms.example.com" }, "setting endpoint"},
		"a path":              {func(o *awskms.Options) { o.Endpoint = "https://kms.example.com/x" }, "setting endpoint"},
		"no URL":              {func(o *awskms.Options) { o.Endpoint = "kms.example.com" }, "setting endpoint"},
		"window too short":    {func(o *awskms.Options) { o.DeletionWindowDays = 6 }, "deletion_window_days"},
		"window too long":     {func(o *awskms.Options) { o.DeletionWindowDays = 31 }, "deletion_window_days"},
		"negative idle":       {func(o *awskms.Options) { o.MinIdle = new(-time.Second) }, "min_idle"},
		"negative timeout":    {func(o *awskms.Options) { o.RequestTimeout = -1 }, "request_timeout"},
		"negative window":     {func(o *awskms.Options) { o.ConsistencyWindow = -1 }, "consistency_window"},
		"long window":         {func(o *awskms.Options) { o.ConsistencyWindow = 91 * time.Second }, "consistency_window may be 90s"},
		"negative rate":       {func(o *awskms.Options) { o.MaxSignaturesPerSecond = -1 }, "max_signatures_per_second"},
		"no number":           {func(o *awskms.Options) { o.MaxSignaturesPerSecond = math.NaN() }, "max_signatures_per_second"},
		"endless rate":        {func(o *awskms.Options) { o.MaxSignaturesPerSecond = math.Inf(1) }, "max_signatures_per_second"},
		"negative line":       {func(o *awskms.Options) { o.MaxWaiting = -1 }, "max_waiting"},
		"alias of AWS":        {func(o *awskms.Options) { o.AliasPrefix = "aws/" }, "alias_prefix"},
		"alias with a dot":    {func(o *awskms.Options) { o.AliasPrefix = "mesh." }, "alias_prefix"},
		"tag of AWS":          {func(o *awskms.Options) { o.Tags = map[string]string{"AWS:x": ""} }, "setting tags"},
		"tag of ours":         {func(o *awskms.Options) { o.Tags = map[string]string{"zonemint:label": ""} }, "setting tags"},
		"tag with a star":     {func(o *awskms.Options) { o.Tags = map[string]string{"team": "*"} }, "setting tags"},
		"no policy":           {func(o *awskms.Options) { o.KeyPolicyFile = "/nowhere/policy.json" }, "key_policy_file"},
		"no JSON":             {func(o *awskms.Options) { o.KeyPolicyFile = writeFile(t, "Version: 2012") }, "key_policy_file"},
		"long policy":         {func(o *awskms.Options) { o.KeyPolicyFile = writeFile(t, `"`+strings.Repeat("x", 32<<10)+`"`) }, "key_policy_file"},
		"unknown profile":     {func(o *awskms.Options) { o.Profile = "nobody" }, "nobody"},
		"all faults together": {func(o *awskms.Options) { o.MaxWaiting, o.AliasPrefix = -1, "." }, "begin with aws/\nthe setting max_waiting"},
	} {
		o := options(s)
		c.change(&o)
		b, err := awskms.New(t.Context(), o)
		if err == nil {
			_ = b.Close()
			t.Errorf("%s: no error", name)
			continue
		}
		if !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	for _, endpoint := range []string{"", "https://vpce-0123.kms.eu-central-1.vpce.amazonaws.com", "http://localhost:4566", "http://[::1]:4566/"} {
		o := options(s)
		o.Endpoint = endpoint
		_ = open(t, o)
	}
	if n := len(s.Calls()); n != 0 {
		t.Errorf("New made %d calls", n)
	}
	o := options(s)
	o.ConsistencyWindow = 0
	if got := open(t, o).Traits().ConsistencyWindow; got != time.Minute {
		t.Errorf("the window is %v where the settings do not say", got)
	}
}

// The region may come from where the SDK has it, and so may the endpoint.
func TestConfigurationOfTheSDK(t *testing.T) {
	s := start(t)
	t.Setenv("AWS_REGION", s.Options().Region)
	t.Setenv("AWS_ENDPOINT_URL_KMS", s.URL())
	t.Setenv("AWS_MAX_ATTEMPTS", "7")
	o := options(s)
	o.Region, o.Endpoint = "", ""
	b := open(t, o)
	h, _, _ := handle(t, b, signer.ES256)
	s.Inject(awskmsdouble.Fault{Op: "Sign", Times: -1, Error: &awskmsdouble.Exception{Type: "ThrottlingException"}})
	before := s.Calls()["Sign"]
	if _, err := sign(t.Context(), h, signer.ES256); b.Code(err) != signer.Throttled {
		t.Errorf("%v", err)
	}
	if n := s.Calls()["Sign"] - before; n != 1 {
		t.Errorf("AWS_MAX_ATTEMPTS has a signature asked for %d times", n)
	}
}
