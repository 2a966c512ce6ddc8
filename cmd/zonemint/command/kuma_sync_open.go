package command

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"connectrpc.com/connect"

	"github.com/zonemint/zonemint/cmd/zonemint/config"
	"github.com/zonemint/zonemint/kubernetes"
	"github.com/zonemint/zonemint/kuma/bridge"
	"github.com/zonemint/zonemint/kuma/controlplane"
	v1 "github.com/zonemint/zonemint/proto/zonemint/v1/zonemintv1connect"
)

// openBridge returns the clients of a process that runs for long: its API token can
// be replaced in its file, and connections that have died are noticed.
func openBridge(conn connection, warnings io.Writer) (v1.KeyServiceClient, v1.RevocationServiceClient, error) {
	if _, err := conn.open(warnings); err != nil { // everything that can be wrong with the settings
		return nil, nil, err
	}
	base, err := conn.base()
	if err != nil {
		return nil, nil, usage{err}
	}
	transport, err := conn.transport()
	if err != nil {
		return nil, nil, usage{err}
	}
	transport.HTTP2 = &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 10 * time.Second}
	h, addr := &http.Client{Transport: noRedirects{transport}, CheckRedirect: asIs}, strings.TrimSuffix(base.String(), "/")
	opts := connect.WithInterceptors(rereading{conn})
	return v1.NewKeyServiceClient(h, addr, opts), v1.NewRevocationServiceClient(h, addr, opts), nil
}

// rereading is an interceptor that reads the API token for every request.
type rereading struct{ conn connection }

func (r rereading) current() (interceptor, error) {
	token, err := r.conn.token(io.Discard)
	return interceptor{r.conn, token}, err
}

// WrapUnary implements connect.Interceptor.
func (r rereading) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		i, err := r.current()
		if err != nil {
			return nil, connect.NewError(connect.CodeUnauthenticated, err)
		}
		return i.WrapUnary(next)(ctx, req)
	}
}

// WrapStreamingClient implements connect.Interceptor.
func (r rereading) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		i, err := r.current()
		if err != nil {
			return next(ctx, spec) // without a token, which the server will not take
		}
		return i.WrapStreamingClient(next)(ctx, spec)
	}
}

// WrapStreamingHandler implements connect.Interceptor. There are no handlers here.
func (r rereading) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

// openSecrets returns where the secrets of a control plane are. It does not connect
// yet.
func openSecrets(p config.ControlPlane, warnings io.Writer) (bridge.Store, error) {
	if p.Kubernetes != nil {
		k, err := kubernetes.New(kubernetes.Config{Kubeconfig: p.Kubernetes.Kubeconfig, Context: p.Kubernetes.Context})
		if err != nil {
			return nil, err
		}
		return controlplane.NewKubernetes(k, p.Kubernetes.Namespace), nil
	}
	transport, err := restTransport(*p.REST)
	if err != nil {
		return nil, err
	}
	c := controlplane.RESTConfig{Address: p.REST.Address, Headers: p.REST.Headers, Transport: transport}
	if p.REST.TokenFile != "" {
		credential := connection{tokenFile: p.REST.TokenFile}
		if _, err := credential.token(warnings); err != nil {
			return nil, fmt.Errorf("rest.token_file: %w", err)
		}
		c.Credential = func() (string, error) { return credential.token(io.Discard) }
	}
	if u, err := url.Parse(p.REST.Address); err == nil && u.Scheme == "http" && !loopback(u.Hostname()) {
		warn(warnings, "control plane %s: the token travels to %s unencrypted", p.Name, u.Host)
	}
	store, err := controlplane.NewREST(c)
	if err != nil {
		return nil, fmt.Errorf("rest.address: %w", err)
	}
	return store, nil
}

// restTransport reads the client's certificate for every connection, since it may be
// renewed.
func restTransport(r config.REST) (*http.Transport, error) {
	t, err := connection{caFile: r.CAFile}.transport()
	if err != nil {
		return nil, fmt.Errorf("rest.ca_file: %w", err)
	}
	if r.ClientCertFile == "" {
		return t, nil
	}
	load := func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		cert, err := tls.LoadX509KeyPair(r.ClientCertFile, r.ClientKeyFile)
		return &cert, err
	}
	if _, err := load(nil); err != nil {
		return nil, fmt.Errorf("rest.client_cert_file: %w", err)
	}
	if t.TLSClientConfig == nil {
		t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	t.TLSClientConfig.GetClientCertificate = load
	return t, nil
}

// bridgeHandler answers for health and metrics of a bridge.
func bridgeHandler(b *bridge.Bridge) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz/live", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /healthz/ready", func(w http.ResponseWriter, _ *http.Request) {
		if err := b.Ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.Handle("GET /metrics", b.Metrics())
	return mux
}
