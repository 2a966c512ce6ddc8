package awskms_test

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zonemint/zonemint/backends/awskms"
	"github.com/zonemint/zonemint/integration/awskmsdouble"
	"github.com/zonemint/zonemint/signer"
)

// withoutKeys takes the access key out of the environment.
func withoutKeys(tb testing.TB) {
	tb.Helper()
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"} {
		tb.Setenv(name, "")
	}
	tb.Setenv("AWS_MAX_ATTEMPTS", "1")
}

func fromSTS(tb testing.TB, url string) {
	tb.Helper()
	tb.Setenv("AWS_ROLE_ARN", "arn:aws:iam::111122223333:role/mesh")
	tb.Setenv("AWS_WEB_IDENTITY_TOKEN_FILE", writeFile(tb, "a.b.hunter2"))
	tb.Setenv("AWS_ENDPOINT_URL_STS", url)
}

// A helper's output is the credentials, and no error quotes it.
func TestCredentialProcess(t *testing.T) {
	const secrets = `{"Version": 1, "AccessKeyId": "AKIAhunter2", "SecretAccessKey": "hunter2", "SessionToken": "hunter2"}`
	for name, c := range map[string]struct {
		script string
		want   signer.Code
	}{
		"a warning comes first":   {"echo 'warning: hunter2 is an old token'\necho '" + secrets + "'\n", signer.Denied},
		"no key":                  {`echo '{"Version": 1, "SessionToken": "hunter2"}'`, signer.Denied},
		"another version":         {"echo '" + strings.Replace(secrets, "1", "2", 1) + "'\n", signer.Denied},
		"it fails after printing": {"echo '" + secrets + "'\nexit 3\n", signer.Unavailable},
	} {
		s := start(t)
		withoutKeys(t)
		t.Setenv("AWS_CONFIG_FILE", writeFile(t, "[default]\ncredential_process = sh "+writeFile(t, c.script)+"\n"))
		_, err := signer.Find(t.Context(), open(t, options(s)), newSpec(signer.ES256))
		if signer.CodeOf(err) != c.want || !strings.Contains(err.Error(), "credential_process") || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// away is a service that has credentials and does not give them.
type away struct {
	status          int // 0 cuts the connection
	body, kind      string
	down, elsewhere bool // nobody listens; there is no such host
	breaksOff       bool // within the answer
}

func (a away) url(tb testing.TB) string {
	tb.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if a.status == 0 {
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("Content-Type", cmp.Or(a.kind, "text/html"))
		if a.breaksOff {
			w.Header().Set("Content-Length", "1000")
		}
		w.WriteHeader(a.status)
		_, _ = w.Write([]byte(a.body))
	}))
	tb.Cleanup(server.Close)
	if a.down {
		server.Close()
	}
	if a.elsewhere {
		return "https://credentials.invalid"
	}
	return server.URL
}

// Where credentials come from can have an outage like everything else, which is no
// refusal: another backend may stand in. Nothing that it says is quoted.
func TestCredentialsAreAway(t *testing.T) {
	s := start(t)
	withoutKeys(t)
	cases := map[string]struct {
		away
		want signer.Code
	}{
		"nobody listens":      {away{down: true}, signer.Unavailable},
		"no such host":        {away{elsewhere: true}, signer.Unavailable},
		"cut":                 {away{}, signer.Unavailable},
		"a proxy's 503":       {away{status: 503, body: "<html>hunter2</html>"}, signer.Unavailable},
		"500 in JSON":         {away{status: 500, body: `{"code": "hunter2 <b>", "message": "hunter2"}`, kind: "application/json"}, signer.Unavailable},
		"a proxy's 429":       {away{status: 429, body: "<html>hunter2</html>"}, signer.Throttled},
		"a proxy's 403":       {away{status: 403, body: "<html>hunter2</html>"}, signer.Denied},
		"404 in JSON":         {away{status: 404, body: `{"code": "NoSuchRole", "message": "hunter2"}`, kind: "application/json"}, signer.Denied},
		"200, and no sense":   {away{status: 200, body: "<html>hunter2</html>"}, signer.Unavailable},
		"200, and breaks off": {away{status: 200, breaksOff: true}, signer.Unavailable},
	}
	open1 := func(name string, c away, source string, set func(url string)) (string, *awskms.Backend) {
		set(c.url(t))
		return source + ": " + name, open(t, options(s))
	}
	backends, want := map[string]*awskms.Backend{}, map[string]signer.Code{}
	for name, c := range cases {
		title, b := open1(name, c.away, "STS", func(url string) { fromSTS(t, url) })
		backends[title], want[title] = b, c.want
	}
	t.Setenv("AWS_WEB_IDENTITY_TOKEN_FILE", "")
	t.Setenv("AWS_ROLE_ARN", "")
	for name, c := range cases {
		if c.elsewhere { // the SDK refuses all names but this machine's
			continue
		}
		title, b := open1(name, c.away, "container", func(url string) { t.Setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", url+"/hunter2") })
		backends[title], want[title] = b, c.want
	}
	var wg sync.WaitGroup
	for title, b := range backends {
		wg.Go(func() { // those of containers are asked for three times, with pauses
			_, err := signer.Find(t.Context(), b, newSpec(signer.ES256))
			if signer.CodeOf(err) != want[title] || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), "no AWS credentials") {
				t.Errorf("%s: %v, want %q", title, err, want[title])
			}
		})
	}
	wg.Wait()
	if n := len(s.Calls()); n != 0 {
		t.Errorf("%d calls without credentials", n)
	}
}

// A request for credentials that is never answered does not hold up all that come later.
func TestCredentialsHang(t *testing.T) {
	s, err := awskmsdouble.Start(awskmsdouble.Options{SessionToken: "FwoGZXIvYXdzE"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	for name, value := range s.Env() {
		t.Setenv(name, value)
	}
	withoutKeys(t)
	answer := func(w http.ResponseWriter, container bool) {
		until, format := time.Now().Add(time.Hour).UTC().Format(time.RFC3339), `<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>`+
			`<AccessKeyId>%s</AccessKeyId><SecretAccessKey>%s</SecretAccessKey><SessionToken>%s</SessionToken><Expiration>%s</Expiration>`+
			`</Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>`
		if container {
			format = `{"AccessKeyId": %q, "SecretAccessKey": %q, "Token": %q, "Expiration": %q}`
		}
		_, _ = fmt.Fprintf(w, format, s.Options().AccessKeyID, s.Options().SecretAccessKey, s.Options().SessionToken, until)
	}
	for _, container := range []bool{false, true} {
		var asked atomic.Int64
		done := make(chan struct{})
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if asked.Add(1) == 1 {
				<-done
				return
			}
			answer(w, container)
		}))
		t.Cleanup(server.Close)
		t.Cleanup(func() { close(done) })
		if fromSTS(t, server.URL); container {
			t.Setenv("AWS_WEB_IDENTITY_TOKEN_FILE", "")
			t.Setenv("AWS_ROLE_ARN", "")
			t.Setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", server.URL)
		}
		o := options(s)
		o.RequestTimeout = 300 * time.Millisecond
		b := open(t, o)
		_, err := signer.Find(t.Context(), b, newSpec(signer.ES256))
		if signer.CodeOf(err) != signer.Unavailable {
			t.Errorf("container %t: %v", container, err)
		}
		for range 50 {
			if _, err = signer.Find(t.Context(), b, newSpec(signer.ES256)); err == nil {
				break
			}
		}
		if err != nil {
			t.Errorf("container %t, later: %v", container, err)
		}
	}
}

// What the SDK finds for itself has to keep the rules of the settings, and an error
// does not quote it.
func TestEndpointsOfTheSDK(t *testing.T) {
	for name, c := range map[string]struct{ variable, value, want string }{
		"plain text":       {"AWS_ENDPOINT_URL_KMS", "http://kms.example.com", "AWS_ENDPOINT_URL_KMS"},
		"for all services": {"AWS_ENDPOINT_URL", "http://kms.example.com", "AWS_ENDPOINT_URL"},
		"a password":       {"AWS_ENDPOINT_URL_KMS", "https://me:hunter2@kms.example.com", "AWS_ENDPOINT_URL_KMS"},
		"malformed":        {"AWS_ENDPOINT_URL_KMS", "https://me:hunter2@[kms.example.com", "AWS_ENDPOINT_URL_KMS"},
		"in a file":        {"AWS_CONFIG_FILE", writeFile(t, "[default]\nendpoint_url = https://me:hunter2@kms.example.com\n"), "endpoint_url"},
		"not for FIPS":     {"AWS_USE_FIPS_ENDPOINT", "true", "FIPS"},
		"of the container": {"AWS_CONTAINER_CREDENTIALS_FULL_URI", "https://me:hunter2@[container", "malformed"},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t)
			for _, unset := range []string{"AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_KMS"} { // an empty one hides the other
				if err := os.Unsetenv(unset); err != nil { // start has it restored
					t.Fatal(err)
				}
			}
			withoutKeys(t)
			t.Setenv(c.variable, c.value)
			o := options(s)
			if c.want != "FIPS" {
				o.Endpoint = ""
			}
			b, err := awskms.New(t.Context(), o)
			if err == nil {
				_ = b.Close()
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

// What a proxy says is not quoted. The environment's proxies are read once in a
// process, so that this needs one of its own.
func TestProxyRefuses(t *testing.T) {
	const child = "ZONEMINT_TEST_PROXY"
	if os.Getenv(child) == "" {
		proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				_, _ = conn.Write([]byte("HTTP/1.1 407 who is hunter2\r\n\r\n"))
				_ = conn.Close()
			}
		}))
		t.Cleanup(proxy.Close)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestProxyRefuses$")
		cmd.Env = append(os.Environ(), child+"=1", "NO_PROXY=", "no_proxy=", "HTTPS_PROXY="+strings.Replace(proxy.URL, "//", "//me:hunter2@", 1))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	s := start(t)
	o := options(s)
	o.Endpoint = "https://kms.example.com"
	_, err := signer.Find(t.Context(), open(t, o), newSpec(signer.ES256))
	if signer.CodeOf(err) != signer.Unavailable || !strings.Contains(err.Error(), "a proxy on the way refuses") || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("%v", err)
	}
}
