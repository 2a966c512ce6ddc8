package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	v1 "github.com/zonemint/zonemint/proto/zonemint/v1/zonemintv1connect"
	"github.com/zonemint/zonemint/token"
)

// client is a server as its callers talk to it.
type client struct {
	tokens  v1.TokenServiceClient
	keys    v1.KeyServiceClient
	callers v1.CallerServiceClient
}

// overConnect returns a client that speaks Connect, over HTTP/1.1.
func (s *server) overConnect(t *testing.T, credential string) client {
	return s.client(t, credential, func(p *http.Protocols) { p.SetHTTP1(true) })
}

// overGRPC returns a client that speaks gRPC, over HTTP/2 without TLS.
func (s *server) overGRPC(t *testing.T, credential string) client {
	return s.client(t, credential, func(p *http.Protocols) { p.SetUnencryptedHTTP2(true) }, connect.WithGRPC())
}

func (s *server) client(t *testing.T, credential string, speak func(*http.Protocols), opts ...connect.ClientOption) client {
	transport := &http.Transport{Protocols: new(http.Protocols), MaxIdleConnsPerHost: 100}
	speak(transport.Protocols)
	t.Cleanup(transport.CloseIdleConnections)
	h, base := &http.Client{Transport: transport}, "http://"+s.public
	opts = append(opts, connect.WithInterceptors(bearer(credential)))
	return client{
		v1.NewTokenServiceClient(h, base, opts...), v1.NewKeyServiceClient(h, base, opts...), v1.NewCallerServiceClient(h, base, opts...),
	}
}

func bearer(credential string) connect.UnaryInterceptorFunc {
	return func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
			req.Header().Set("Authorization", "Bearer "+credential)
			return next(ctx, req)
		}
	}
}

// issued is a token that a client has received.
type issued struct {
	zone, token, jti string
	round            int
	keyset, kid      string    // if the test asked for them
	at               time.Time // likewise: when it was asked for
}

// issue asks for a token of the default keyset.
func (c client) issue(ctx context.Context, zone string, patience time.Duration) (issued, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	resp, err := c.tokens.IssueZoneToken(ctx, &pb.IssueZoneTokenRequest{Zone: zone, ValidFor: durationpb.New(time.Hour)})
	if err != nil {
		return issued{}, err
	}
	return issued{zone: zone, token: resp.GetToken(), jti: resp.GetJti()}, nil
}

// mustIssue wants a token within ten seconds.
func (c client) mustIssue(t *testing.T, zone string) issued {
	t.Helper()
	k, err := c.issue(t.Context(), zone, 10*time.Second)
	if err != nil {
		t.Fatal("issuing:", err)
	}
	return k
}

// mustIssueSoon wants a token within ten seconds of a server whose lease is short: one
// that a busy machine has kept from renewing it says that it is unavailable.
func (c client) mustIssueSoon(t *testing.T, zone string) (k issued) {
	t.Helper()
	eventually(t, 10*time.Second, "there is a token", func() (ok bool) {
		var err error
		if k, err = c.issue(t.Context(), zone, 10*time.Second); err != nil && codeOf(err) != connect.CodeUnavailable {
			t.Fatal("issuing:", err)
		}
		return err == nil
	})
	return k
}

// document is an HTTP answer.
type document struct {
	status int
	maxAge time.Duration // -1: the answer does not say
	body   []byte
}

// get fetches a path from an address of a server.
func get(t *testing.T, address, path string) document {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer shut(resp.Body)
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return document{status: resp.StatusCode, maxAge: maxAge(resp.Header), body: body}
}

func maxAge(h http.Header) time.Duration {
	m := regexp.MustCompile(`max-age=(\d+)`).FindStringSubmatch(h.Get("Cache-Control"))
	if m == nil {
		return -1
	}
	seconds, err := strconv.Atoi(m[1])
	if err != nil {
		return -1
	}
	return time.Duration(seconds) * time.Second
}

// jwks fetches the JWK set of a keyset, which every server serves at all times.
func (s *server) jwks(t *testing.T, keyset string) document {
	t.Helper()
	d := get(t, s.public, "/keysets/"+keyset+"/jwks.json")
	if d.status != http.StatusOK {
		t.Fatalf("the JWK set of %s: status %d\n%s", keyset, d.status, d.body)
	}
	return d
}

// keys returns the JWK set of a keyset as a control plane has it.
func (s *server) keys(t *testing.T, keyset string) *token.KeySet {
	t.Helper()
	set, err := token.ParseKeySet(s.jwks(t, keyset).body)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// ready returns the status of the readiness check.
func (s *server) ready(t *testing.T) int { return get(t, s.private, "/healthz/ready").status }

// live returns the status of the liveness check.
func (s *server) live(t *testing.T) int { return get(t, s.private, "/healthz/live").status }

// wantValid wants a control plane with these keys to accept the tokens, each for
// its zone.
func wantValid(t *testing.T, keys token.KeySource, tokens ...issued) {
	t.Helper()
	v, err := token.NewVerifier[token.ZoneClaims](keys, token.Options{Leeway: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range tokens {
		good, err := v.Verify(t.Context(), k.token, token.RequireZone(k.zone), token.RequireScopes(token.DefaultScopes()...))
		if err != nil {
			t.Errorf("the token %s: %v", k.jti, err)
		} else if k.jti != "" && good.Claims.ID != k.jti {
			t.Errorf("the token's jti is %s, the server said %s", good.Claims.ID, k.jti)
		}
	}
}

// eventually waits until what is true, and fails the test if it takes too long, as
// settles counts it.
func eventually(t *testing.T, patience time.Duration, what string, is func() bool) time.Duration {
	t.Helper()
	took := settles(patience, is)
	if took > patience {
		t.Fatalf("not within %s: %s", patience, what)
	}
	return took
}

// settles waits until something is true, or for longer than patience, and
// returns how long it has waited. What the machine took for itself does not count.
func settles(patience time.Duration, is func() bool) time.Duration {
	start, m := time.Now(), watchMachine()
	defer m.stop()
	for !is() && m.took(start) <= patience {
		time.Sleep(20 * time.Millisecond)
	}
	return m.took(start)
}

// decode reads a JSON object.
func decode[T any](t *testing.T, text string) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(fmt.Errorf("%w in %q", err, text))
	}
	return v
}
