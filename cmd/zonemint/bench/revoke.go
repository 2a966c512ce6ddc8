package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/zonemint/zonemint/cmd/zonemint/config"
	"github.com/zonemint/zonemint/token"
)

const revokePath = "/zonemint.v1.RevocationService/RevokeToken"

// revocations measures how long it takes from the moment that somebody asks for
// a revocation to the moment that a verifier, which follows the feed by stream,
// refuses the token.
func (s *session) revocations(ctx context.Context, name string, db config.Database) (err error) {
	if s.Revocations == 0 {
		return nil
	}
	t, err := start(ctx, s.dir, db, nil)
	if err != nil {
		return err
	}
	defer func() {
		if serr := t.stop(); err == nil {
			err = serr
		}
	}()
	feed, err := token.NewRemoteRevocations(t.base, "es256", token.RevocationOptions{
		Credential: func(context.Context) (string, error) { return t.token, nil },
	})
	if err != nil {
		return err
	}
	following, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- feed.Run(following) }()
	defer func() {
		cancel()
		<-done
	}()
	took := make([]time.Duration, 0, s.Revocations)
	for range s.Revocations {
		d, err := revokeOne(ctx, t, feed)
		if err != nil {
			return fmt.Errorf("revocations: %w", err)
		}
		took = append(took, d)
	}
	slices.Sort(took)
	s.emit(Result{
		Name: "from revoked to refused", Store: name, Connections: 1, Client: "token.RemoteRevocations",
		P50: milliseconds(took[len(took)/2]), P99: milliseconds(took[len(took)*99/100]),
		Note: fmt.Sprintf("%d revocations, the slowest after %.2f ms", len(took), milliseconds(took[len(took)-1])),
	})
	return nil
}

// revokeOne issues a token, waits until the verifier accepts it, revokes it, and
// returns how long the verifier went on accepting it.
func revokeOne(ctx context.Context, t *target, feed *token.RemoteRevocations) (time.Duration, error) {
	var issued struct{ JTI string }
	if err := call(ctx, request{http.MethodPost, t.base + issuePath, t.token, issueBody("ES256")}, &issued); err != nil {
		return 0, err
	}
	if _, err := refusedWithin(ctx, feed, issued.JTI, false); err != nil {
		return 0, err
	}
	started := time.Now()
	var revoked struct{}
	body := fmt.Sprintf(`{"jti":%q,"reason":"bench"}`, issued.JTI)
	if err := call(ctx, request{http.MethodPost, t.base + revokePath, t.token, body}, &revoked); err != nil {
		return 0, err
	}
	at, err := refusedWithin(ctx, feed, issued.JTI, true)
	return at.Sub(started), err
}

// refusedWithin waits until the feed gives an answer about a token.
func refusedWithin(ctx context.Context, feed *token.RemoteRevocations, jti string, want bool) (time.Time, error) {
	for deadline := time.Now().Add(30 * time.Second); ; {
		revoked, err := feed.Revoked(ctx, jti)
		if err == nil && revoked == want {
			return time.Now(), nil
		}
		if time.Now().After(deadline) {
			return time.Time{}, fmt.Errorf("token %s: the verifier still says revoked=%t (%w)", jti, revoked, err)
		}
		time.Sleep(50 * time.Microsecond)
	}
}

// call sends one request and reads its JSON answer.
func call(ctx context.Context, r request, answer any) error {
	req, err := http.NewRequestWithContext(ctx, r.method, r.url, bytes.NewReader([]byte(r.body)))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+r.token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %s: %.200s", resp.Status, body)
	}
	return json.Unmarshal(body, answer)
}
