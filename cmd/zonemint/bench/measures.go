package bench

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

const (
	issuePath = "/zonemint.v1.TokenService/IssueZoneToken"
	batchPath = "/zonemint.v1.TokenService/IssueTokens"
	batchSize = 1000
)

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func issueBody(alg string) string {
	return fmt.Sprintf(`{"zone":"west","scopes":["ingress","egress"],"validFor":"3600s","keyset":%q}`, strings.ToLower(alg))
}

// load measures single tokens over Connect with JSON.
func (s *session) load(ctx context.Context, t *target, alg string, connections int) error {
	f, raw, err := s.beside(ctx, alg, func() (figures, error) {
		return s.drive(ctx, request{http.MethodPost, t.base + issuePath, t.token, issueBody(alg)}, connections)
	})
	if err != nil {
		return err
	}
	s.emit(Result{
		Name: "tokens", Store: t.store, Algorithm: alg, Ledger: t.ledger, Connections: connections, Client: f.client,
		PerSecond: f.perSecond, P50: milliseconds(f.p50), P99: milliseconds(f.p99), OfRaw: f.perSecond / raw,
	})
	return nil
}

// batches measures batches of 1,000 ES256 tokens, two in flight.
func (s *session) batches(ctx context.Context, t *target) error {
	item := `{"zone":` + issueBody("ES256") + `}`
	body := `{"items":[` + strings.Repeat(item+",", batchSize-1) + item + `]}`
	f, raw, err := s.beside(ctx, "ES256", func() (figures, error) {
		return s.drive(ctx, request{http.MethodPost, t.base + batchPath, t.token, body}, 2)
	})
	if err != nil {
		return err
	}
	rate := f.perSecond * batchSize
	s.emit(Result{
		Name: "tokens in batches of 1,000", Store: t.store, Algorithm: "ES256", Ledger: t.ledger, Connections: 2, Client: f.client,
		PerSecond: rate, P50: milliseconds(f.p50), P99: milliseconds(f.p99), OfRaw: rate / raw,
	})
	return nil
}

// keySets measures the JWK set against a bare handler that serves the same bytes.
func (s *session) keySets(ctx context.Context, t *target) error {
	url := t.base + "/keysets/rs256/jwks.json"
	body, err := fetch(ctx, url)
	if err != nil {
		return err
	}
	bare, stop, err := bareHandler(ctx, body)
	if err != nil {
		return err
	}
	defer stop()
	// By turns, so that another load on the machine hits both alike.
	var ours, theirs figures
	for range 2 {
		a, err := s.drive(ctx, request{method: http.MethodGet, url: bare}, 32)
		if err != nil {
			return err
		}
		b, err := s.drive(ctx, request{method: http.MethodGet, url: url}, 32)
		if err != nil {
			return err
		}
		theirs, ours = better(theirs, a), better(ours, b)
	}
	s.emit(Result{Name: "JWK set, bare net/http handler", Connections: 32, Client: theirs.client,
		PerSecond: theirs.perSecond, P50: milliseconds(theirs.p50), P99: milliseconds(theirs.p99)})
	s.emit(Result{Name: "JWK set", Store: t.store, Connections: 32, Client: ours.client, PerSecond: ours.perSecond,
		P50: milliseconds(ours.p50), P99: milliseconds(ours.p99),
		Note: fmt.Sprintf("%.2f of the bare handler", ours.perSecond/theirs.perSecond)})
	return nil
}

func better(a, b figures) figures {
	if b.perSecond > a.perSecond {
		return b
	}
	return a
}

func fetch(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(resp.Body)
}

func bareHandler(ctx context.Context, body []byte) (url string, stop func(), err error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	srv := &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/jwk-set+json")
		_, _ = w.Write(body) // the client is gone if it fails
	})}
	go func() { _ = srv.Serve(l) }() // ends with Close
	return "http://" + l.Addr().String(), func() { _ = srv.Close() }, nil
}
