package token_test

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"time"

	"github.com/zonemint/zonemint/token"
)

// exampleKey stands for a key of the keyset "zone": in reality only zonemint's
// backend has it.
func exampleKey() ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed([]byte("32 bytes that are not secret at!"))
}

func exampleToken(id string) string {
	now := time.Now()
	claims := token.ZoneClaims{Zone: "west", Scope: token.DefaultScopes(), Registered: token.Registered{
		ExpiresAt: now.Add(time.Hour), NotBefore: now.Add(-5 * time.Second), IssuedAt: now.Add(-5 * time.Second), ID: id,
	}}
	input := token.AppendSigningInput(nil, token.EncodeHeader("EdDSA", "zone-1-0a1b2c3d"), claims)
	return string(token.AppendSignature(input, ed25519.Sign(exampleKey(), input)))
}

func exampleKeys() *token.KeySet {
	key, err := token.NewKey("zone-1-0a1b2c3d", "EdDSA", exampleKey().Public())
	if err != nil {
		panic(err)
	}
	set, err := token.NewKeySet(key)
	if err != nil {
		panic(err)
	}
	return set
}

// A control plane fetches the keys of its keyset and verifies tokens with them.
func Example() {
	zonemint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		set, _ := exampleKeys().MarshalJSON()
		w.Header().Set("Cache-Control", "max-age=60")
		w.Write(set)
	}))
	defer zonemint.Close()

	keys, err := token.NewRemoteKeys(zonemint.URL+"/keysets/zone/jwks.json", token.RemoteOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- keys.Run(ctx) }()
	defer func() { stop(); <-done }()

	verifier, err := token.NewVerifier[token.ZoneClaims](keys, token.Options{Leeway: 10 * time.Second})
	if err != nil {
		fmt.Println(err)
		return
	}
	got, err := verifier.Verify(ctx, exampleToken("id-1"), token.RequireZone("west"), token.RequireScopes(token.ScopeIngress))
	fmt.Println(got.Claims.Zone, got.Claims.Scope, token.Reason(err))

	_, err = verifier.Verify(ctx, exampleToken("id-1"), token.RequireScopes(token.ScopeCP))
	fmt.Println(token.Reason(err), errors.Is(err, token.ErrRequirement))
	// Output:
	// west [ingress egress] ok
	// requirement true
}

// exampleZonemint stands for a zonemint that serves the keyset "zone", of which the
// token with the jti id-2 was revoked. This one does not stream.
func exampleZonemint() *httptest.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /keysets/zone/jwks.json", func(w http.ResponseWriter, _ *http.Request) {
		set, _ := exampleKeys().MarshalJSON()
		w.Write(set)
	})
	mux.HandleFunc("GET /keysets/zone/revocations", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer zmt_example" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		fmt.Fprintf(w, `{"keyset":"zone","epoch":"0190a5b0","seq":7,"more":false,"revoked":[{"jti":"id-2","exp":%d}]}`,
			time.Now().Add(time.Hour).Unix())
	})
	return httptest.NewServer(mux)
}

// A control plane follows the keys and the revocations of its keyset, waits until it
// has both, and then verifies tokens without asking anybody. Its API token is in a
// file, which may be replaced while it runs.
func ExampleRemoteRevocations() {
	zonemint := exampleZonemint()
	defer zonemint.Close()
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	tokenFile := filepath.Join(dir, "zonemint.token")
	if err := os.WriteFile(tokenFile, []byte("zmt_example\n"), 0o600); err != nil {
		fmt.Println(err)
		return
	}

	// From here on it is what a control plane does.
	keys, err := token.NewRemoteKeys(zonemint.URL+"/keysets/zone/jwks.json", token.RemoteOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	revocations, err := token.NewRemoteRevocations(zonemint.URL, "zone", token.RevocationOptions{
		Credential: func(context.Context) (string, error) {
			text, err := os.ReadFile(tokenFile)
			return string(text), err
		},
		MaxStale: 2 * time.Minute,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	verifier, err := token.NewVerifier[token.ZoneClaims](keys, token.Options{Leeway: 10 * time.Second, Revocations: revocations})
	if err != nil {
		fmt.Println(err)
		return
	}

	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { done <- keys.Run(ctx) }()
	go func() { done <- revocations.Run(ctx) }()
	defer func() { stop(); <-done; <-done }()

	// Until the feed was read once, every token is refused. Do not serve before.
	select {
	case <-revocations.Ready():
	case <-time.After(time.Minute):
		fmt.Println(revocations.Status().Err)
		return
	}
	_, err = verifier.Verify(ctx, exampleToken("id-1"), token.RequireZone("west"))
	fmt.Println(token.Reason(err))
	_, err = verifier.Verify(ctx, exampleToken("id-2"), token.RequireZone("west"))
	fmt.Println(token.Reason(err))

	// For metrics and health.
	status := revocations.Status()
	fmt.Println(status.Count, status.Usable, status.Age < time.Minute)
	// Output:
	// ok
	// revoked
	// 1 true true
}

// feed is a list of revoked tokens that has, or has not yet, been fetched.
type feed struct {
	arrived bool
	revoked map[string]bool
}

func (f *feed) Revoked(_ context.Context, jti string) (bool, error) {
	if !f.arrived {
		return false, errors.New("no revocations have been fetched yet")
	}
	return f.revoked[jti], nil
}

func ExampleRevocations() {
	f := &feed{}
	verifier, err := token.NewVerifier[token.ZoneClaims](exampleKeys(), token.Options{Revocations: f})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	_, err = verifier.Verify(ctx, exampleToken("id-1"))
	fmt.Println(token.Reason(err))

	f.arrived, f.revoked = true, map[string]bool{"id-2": true}
	_, err = verifier.Verify(ctx, exampleToken("id-1"))
	fmt.Println(token.Reason(err))
	_, err = verifier.Verify(ctx, exampleToken("id-2"))
	fmt.Println(token.Reason(err))
	// Output:
	// revocations_unavailable
	// ok
	// revoked
}

// A key from a file, as "zonemint generate public-key" writes it.
func ExampleParseKey() {
	der, _ := x509.MarshalPKIXPublicKey(exampleKey().Public())
	file := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})

	key, err := token.ParseKey("zone-1-0a1b2c3d", "EdDSA", file)
	if err != nil {
		fmt.Println(err)
		return
	}
	keys, err := token.NewKeySet(key)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(keys.IDs(), key.Algorithm())
	// Output: [zone-1-0a1b2c3d] EdDSA
}

// What a verifier needs to know of a keyset, as zonemint publishes it.
func ExampleKeySet_MarshalJSON() {
	set, err := exampleKeys().MarshalJSON()
	fmt.Println(string(set), err)
	// Output: {"keys":[{"use":"sig","kty":"OKP","kid":"zone-1-0a1b2c3d","crv":"Ed25519","alg":"EdDSA","x":"z8nfPfuyCEtftl2Bh46UeyUULxmfW1kgICCM72qgIxY"}]} <nil>
}

func ExampleAppendSigningInput() {
	claims := token.ZoneClaims{Zone: "west", Scope: []string{token.ScopeCP}, Registered: token.Registered{
		ExpiresAt: time.Unix(1767229200, 0), ID: "id-1",
	}}
	fmt.Println(string(claims.AppendJSON(nil)))
	fmt.Println(string(token.AppendSigningInput(nil, token.EncodeHeader("ES256", "zone-1"), claims)))
	// Output:
	// {"Zone":"west","Scope":["cp"],"exp":1767229200,"jti":"id-1"}
	// eyJhbGciOiJFUzI1NiIsImtpZCI6InpvbmUtMSIsInR5cCI6IkpXVCJ9.eyJab25lIjoid2VzdCIsIlNjb3BlIjpbImNwIl0sImV4cCI6MTc2NzIyOTIwMCwianRpIjoiaWQtMSJ9
}
