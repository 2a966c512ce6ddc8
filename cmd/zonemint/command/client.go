package command

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	v1 "github.com/zonemint/zonemint/proto/zonemint/v1/zonemintv1connect"
)

const defaultAddr = "http://127.0.0.1:8440"

// connection says how to reach a server.
type connection struct {
	addr      string
	tokenFile string
	caFile    string
	timeout   time.Duration
}

// connectionFlags adds the flags of a command that talks to a server. Defaults
// come from the environment.
func connectionFlags(cmd *cobra.Command, c *connection) {
	f := cmd.Flags()
	f.StringVar(&c.addr, "addr", cmp.Or(os.Getenv("ZONEMINT_ADDR"), defaultAddr), "the server's `URL` (ZONEMINT_ADDR)")
	f.StringVar(&c.tokenFile, "token-file", os.Getenv("ZONEMINT_TOKEN_FILE"), "a `file` with your API token (ZONEMINT_TOKEN_FILE)")
	f.StringVar(&c.caFile, "ca-file", os.Getenv("ZONEMINT_CA_FILE"), "a `file` with the certificate authority to trust, in PEM (ZONEMINT_CA_FILE)")
	f.DurationVar(&c.timeout, "timeout", 30*time.Second, "how long to wait for an answer")
	_ = cmd.MarkFlagFilename("ca-file", "pem", "crt") // the flag exists
}

// client is a server as commands talk to it.
type client struct {
	tokens      v1.TokenServiceClient
	keys        v1.KeyServiceClient
	callers     v1.CallerServiceClient
	revocations v1.RevocationServiceClient
	audit       v1.AuditServiceClient
	legacy      v1.LegacyKeyServiceClient
	web         web // what is no call
}

// open checks the settings and returns a client. It does not connect yet. What
// looks dangerous is told to warnings.
func (c connection) open(warnings io.Writer) (*client, error) {
	base, err := c.base()
	if err != nil {
		return nil, usage{err}
	}
	token, err := c.token(warnings)
	if err != nil {
		return nil, usage{err}
	}
	transport, err := c.transport()
	if err != nil {
		return nil, usage{err}
	}
	if c.timeout <= 0 {
		return nil, usage{errors.New("--timeout must be longer than nothing")}
	}
	if base.Scheme == "http" && !loopback(base.Hostname()) {
		warn(warnings, "your API token and what the server answers travel to %s unencrypted", base.Host)
	}
	h, addr := &http.Client{Transport: noRedirects{transport}, CheckRedirect: asIs}, strings.TrimSuffix(base.String(), "/")
	opts := connect.WithInterceptors(interceptor{c, token})
	return &client{
		tokens: v1.NewTokenServiceClient(h, addr, opts), keys: v1.NewKeyServiceClient(h, addr, opts),
		callers: v1.NewCallerServiceClient(h, addr, opts), revocations: v1.NewRevocationServiceClient(h, addr, opts),
		legacy: v1.NewLegacyKeyServiceClient(h, addr, opts),
		audit:  v1.NewAuditServiceClient(h, addr, opts), web: web{c, h, addr, token},
	}, nil
}

func (c connection) base() (*url.URL, error) {
	u, err := url.Parse(c.addr)
	switch {
	case err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https"):
		return nil, errors.New("--addr is not a URL like https://zonemint.example.com")
	case u.User != nil:
		return nil, errors.New("--addr holds a user name; the credential goes into --token-file")
	case u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("--addr has a query or a fragment, which make no sense here")
	}
	return u, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func (c connection) token(warnings io.Writer) (string, error) {
	if c.tokenFile == "" {
		return "", errors.New("no API token: name its file with --token-file or ZONEMINT_TOKEN_FILE")
	}
	b, err := readSecret(c.tokenFile, warnings)
	if err != nil {
		return "", fmt.Errorf("API token: %w", err)
	}
	text := strings.TrimSpace(string(b))
	if text == "" || strings.ContainsAny(text, " \t\r\n") {
		return "", fmt.Errorf("API token: %s does not hold one token and nothing else", c.tokenFile)
	}
	return text, nil
}

// readSecret reads a file that is nobody else's business, and warns if others
// can read it too.
func readSecret(path string, warnings io.Writer) ([]byte, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(path)
	if err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0 && runtime.GOOS != "windows" {
		warn(warnings, "others on this machine may read %s: chmod 600 it", path)
	}
	return b, nil
}

func (c connection) transport() (*http.Transport, error) {
	t := http.DefaultTransport.(*http.Transport).Clone()
	if c.caFile == "" {
		return t, nil
	}
	pem, err := os.ReadFile(c.caFile)
	if err != nil {
		return nil, fmt.Errorf("--ca-file: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("--ca-file: %s holds no certificate", c.caFile)
	}
	t.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	return t, nil
}

// asIs keeps the client from following a redirect: the credential is for the
// server that was named, and for nobody whom an answer names.
func asIs(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// noRedirects turns a redirect into an error, which says more than the failure that
// would come of its body.
type noRedirects struct{ next http.RoundTripper }

func (n noRedirects) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := n.next.RoundTrip(req)
	if err != nil || resp.StatusCode < 300 || resp.StatusCode > 399 || resp.StatusCode == http.StatusNotModified {
		return resp, err
	}
	_ = resp.Body.Close() // nothing of it is read
	return nil, &redirectError{resp.Status, resp.Header.Get("Location")}
}

// redirectError is an answer that sends the client elsewhere.
type redirectError struct{ status, location string }

func (e *redirectError) Error() string {
	to := "nowhere"
	if u, err := url.Parse(e.location); err == nil && e.location != "" {
		to = cmp.Or(u.Host, "another path of the same server")
	}
	return fmt.Sprintf("the server answered %s, a redirect to %s", printable(e.status), printable(to))
}

// interceptor gives every request the API token, and every failure a text that
// says what can be done about it. Calls get a deadline; a stream has none, whoever
// reads it looks after that.
type interceptor struct {
	conn  connection
	token string
}

// WrapUnary implements connect.Interceptor.
func (i interceptor) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		ctx, cancel := context.WithTimeout(ctx, i.conn.timeout)
		defer cancel()
		req.Header().Set("Authorization", "Bearer "+i.token)
		resp, err := next(ctx, req)
		if err != nil {
			return nil, i.conn.failed(err)
		}
		return resp, nil
	}
}

// WrapStreamingClient implements connect.Interceptor.
func (i interceptor) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		stream := next(ctx, spec)
		stream.RequestHeader().Set("Authorization", "Bearer "+i.token)
		return stream
	}
}

// WrapStreamingHandler implements connect.Interceptor. There are no handlers here.
func (i interceptor) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

// callError is a call that failed, with a text for a person.
type callError struct {
	err  error
	text string
}

func (f *callError) Error() string { return f.text }

func (f *callError) Unwrap() error { return f.err }

// failed gives a failure its text.
func (c connection) failed(err error) error {
	failed := &callError{err, c.explain(err)}
	_, untrusted := errors.AsType[*tls.CertificateVerificationError](err)
	if _, redirected := errors.AsType[*redirectError](err); untrusted || redirected {
		return usage{failed} // trying again does not help
	}
	return failed
}

// explain says what failed and what can be done about it.
func (c connection) explain(err error) string {
	e, ok := errors.AsType[*connect.Error](err)
	if !ok || !connect.IsWireError(err) {
		return c.explainLocal(err)
	}
	return c.advise(e.Code(), e.Message(), e.Meta().Get("X-Request-Id"))
}

// advise adds to the server's words what can be done.
func (c connection) advise(code connect.Code, text, requestID string) string {
	switch code {
	default: // the server's own words are enough
	case connect.CodeUnauthenticated:
		return text + "\nGet an API token from an administrator (zonemint api-token create) or make one on the server's\n" +
			"machine (zonemint admin-token create), and name its file with --token-file or ZONEMINT_TOKEN_FILE."
	case connect.CodePermissionDenied:
		return text + "\n\"zonemint whoami\" shows what your API token may do."
	case connect.CodeInternal, connect.CodeUnknown, connect.CodeUnavailable:
		if requestID != "" {
			return text + " (request ID " + requestID + ")"
		}
	case connect.CodeUnimplemented:
		return text + "\nIs " + c.addr + " a zonemint server, and as new as this command?"
	}
	return cmp.Or(text, code.String())
}

// explainLocal is for failures on the way to the server.
func (c connection) explainLocal(err error) string {
	if e, ok := errors.AsType[*redirectError](err); ok {
		return fmt.Sprintf("%v, which is not followed, so that your API token goes nowhere else\nIf the server has moved, name its new address with --addr or ZONEMINT_ADDR.", e)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Sprintf("%s did not answer within %s (--timeout)", c.addr, c.timeout)
	}
	if errors.Is(err, context.Canceled) {
		return "interrupted"
	}
	if e, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return fmt.Sprintf("%s is not trusted: %v\nIf its certificate authority is your own, name it with --ca-file or ZONEMINT_CA_FILE.", c.addr, e.Err)
	}
	cause := describe(err)
	if e, ok := errors.AsType[*net.OpError](err); ok {
		cause = e.Err.Error()
	}
	return fmt.Sprintf("cannot reach a zonemint server at %s: %s\nName another address with --addr or ZONEMINT_ADDR.", c.addr, cause)
}
