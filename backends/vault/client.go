package vault

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"github.com/zonemint/zonemint/signer"
)

// maxAnswer bounds what is read of an answer. The longest is the list of keys.
const maxAnswer = 16 << 20

// client makes single requests and never repeats one, except that the
// transport may where a connection turns out to be closed before anything was
// answered on it.
type client struct {
	http      *http.Client
	base      string // "https://host:port/v1/"
	namespace string
	timeout   time.Duration
	slots     chan struct{} // held by each request under way
	requests  atomic.Uint64
}

// request is what a call sends. op says what was being done, for errors.
type request struct {
	op, method, path string
	namespace        *string // nil means the client's
	token            string
	body             any
	secrets          []string // of the body, which no error may quote

	// repeatable says that the request has no effect, so that the transport
	// may send it again on another connection if the one it took was closed
	// by the server meanwhile. Else a restart would fail as many requests as
	// there were connections.
	repeatable bool
}

// newClient uses HTTP/1.1: a connection that is lost or hangs then takes one
// request with it, where HTTP/2 would lose all.
func newClient(o Options) (*client, error) {
	u, err := o.parseAddress()
	if err != nil {
		return nil, err
	}
	dialer := &net.Dialer{
		Timeout:         5 * time.Second,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 2 * time.Second, Count: 3},
	}
	t := &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            dialer.DialContext,
		TLSHandshakeTimeout:    5 * time.Second,
		MaxIdleConnsPerHost:    o.MaxConnections,
		IdleConnTimeout:        time.Minute,
		MaxResponseHeaderBytes: 64 << 10,
		DisableCompression:     true,
		Protocols:              new(http.Protocols),
	}
	t.Protocols.SetHTTP1(true)
	if t.TLSClientConfig, err = o.tlsConfig(); err != nil {
		return nil, err
	}
	base := u.Scheme + "://" + u.Host + "/v1/"
	if u.Scheme == "unix" {
		base, t.Proxy = "http://localhost/v1/", nil
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", u.Path)
		}
	}
	return &client{
		http:      &http.Client{Transport: t, CheckRedirect: o.mayFollow},
		base:      base,
		namespace: o.Namespace,
		timeout:   o.RequestTimeout,
		slots:     make(chan struct{}, o.MaxConnections),
	}, nil
}

func (o Options) tlsConfig() (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: o.ServerName}
	if o.CAFile != "" {
		pem, err := os.ReadFile(o.CAFile)
		if err != nil {
			return nil, fmt.Errorf("the setting ca_file: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, errors.New("the setting ca_file names a file without a certificate in PEM")
		}
	}
	if o.CertFile != "" {
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			cert, err := tls.LoadX509KeyPair(o.CertFile, o.KeyFile)
			if err != nil {
				return nil, fmt.Errorf("the client certificate: %w", err)
			}
			return &cert, nil
		}
		if _, err := cfg.GetClientCertificate(nil); err != nil {
			return nil, err
		}
	}
	return cfg, nil
}

// mayFollow is asked before a redirect is followed, with everything that the
// request holds. Only 307 and 308 repeat the request as it was.
func (o Options) mayFollow(req *http.Request, via []*http.Request) error {
	asItWas := req.Response.StatusCode == http.StatusTemporaryRedirect || req.Response.StatusCode == http.StatusPermanentRedirect
	if len(via) > 1 || !asItWas || req.URL.User != nil ||
		req.URL.Scheme != via[0].URL.Scheme || !slices.Contains(o.Redirects, req.URL.Host) {
		return http.ErrUseLastResponse
	}
	return nil
}

// do makes the request and reads the answer into into, unless that is nil. An
// answer without content leaves into as it is.
func (c *client) do(ctx context.Context, r request, into any) error {
	within, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	select {
	case c.slots <- struct{}{}:
	case <-within.Done():
		return unanswered(ctx, r, fmt.Errorf("all connections are taken: %w", within.Err()))
	}
	defer func() { <-c.slots }()

	status, header, body, err := c.exchange(within, r)
	if err != nil {
		if ctx.Err() == nil || errors.Is(ctx.Err(), context.DeadlineExceeded) {
			c.http.CloseIdleConnections() // the others may be as dead as this one
		}
		return unanswered(ctx, r, err)
	}
	if status < 200 || status > 299 {
		return refusal(r, status, header, body)
	}
	if into == nil || len(body) == 0 {
		return nil
	}
	return decode(r, body, into)
}

func (c *client) exchange(ctx context.Context, r request) (status int, _ http.Header, body []byte, _ error) {
	req, err := c.newRequest(ctx, r)
	if err != nil {
		return 0, nil, nil, err
	}
	c.requests.Add(1)
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, nil, nil, err
	}
	defer resp.Body.Close()
	if body, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1)); err != nil {
		return 0, nil, nil, fmt.Errorf("the answer broke off: %w", err)
	}
	return resp.StatusCode, resp.Header, body, nil
}

func (c *client) newRequest(ctx context.Context, r request) (*http.Request, error) {
	var body io.Reader
	if r.body != nil {
		text, err := json.Marshal(r.body)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, r.method, c.base+r.path, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("X-Vault-Request", "true") // agents may insist, against forged requests of browsers
	req.Header.Set("User-Agent", "zonemint")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if r.token != "" {
		req.Header.Set("X-Vault-Token", r.token)
	}
	namespace := c.namespace
	if r.namespace != nil {
		namespace = *r.namespace
	}
	if namespace != "" {
		req.Header.Set("X-Vault-Namespace", namespace)
	}
	if r.repeatable {
		req.Header["X-Idempotency-Key"] = nil // tells the transport; nothing is sent
	}
	return req, nil
}

// decode tells an answer that was cut off, which comes again, from one that is
// something else.
func decode(r request, body []byte, into any) error {
	if len(body) > maxAnswer {
		return fail(signer.Corrupt, "%s: the answer has more than %d bytes", r.op, maxAnswer)
	}
	err := json.NewDecoder(bytes.NewReader(body)).Decode(into)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fail(signer.Unavailable, "%s: the answer broke off", r.op)
	default: // whose words may quote the answer
		return fail(signer.Corrupt, "%s: the answer is not one of Vault's; is this its address?", r.op)
	}
}
