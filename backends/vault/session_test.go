package vault

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zonemint/zonemint/signer"
)

// authority is the part of a server that knows tokens. It answers in a time of
// its own, in a synctest bubble.
type authority struct {
	mu       sync.Mutex
	status   int // of everything, if not 0
	latency  time.Duration
	lease    int64 // seconds, of new tokens
	max      time.Duration
	fixed    bool // tokens cannot be renewed
	born     map[string]time.Time
	good     string // the one token that is accepted
	logins   []time.Time
	renewals int
	tries    int
	roleID   string // the file that it is in
}

func (a *authority) RoundTrip(r *http.Request) (*http.Response, error) {
	select {
	case <-time.After(a.latency):
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.tries++
	status, body := a.answer(r)
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
}

func (a *authority) answer(r *http.Request) (int, string) {
	switch token := r.Header.Get("X-Vault-Token"); {
	case a.status != 0:
		return a.status, `{"errors":["Vault is sealed"]}`
	case strings.HasSuffix(r.URL.Path, "/login"):
		a.logins = append(a.logins, time.Now())
		a.good = fmt.Sprint("hvs.", len(a.logins))
		a.born[a.good] = time.Now()
		return 200, a.auth(a.good, a.lease)
	case token != a.good:
		return 403, `{"errors":["2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"]}`
	case strings.HasSuffix(r.URL.Path, "renew-self"):
		a.renewals++
		left := int64(time.Until(a.born[token].Add(a.max)).Seconds())
		return 200, a.auth(token, min(a.lease, left))
	default:
		return 200, `{"data":{"signature":"vault:v1:c2ln"}}`
	}
}

func (a *authority) auth(token string, lease int64) string {
	text, _ := json.Marshal(authAnswer{&authInfo{ClientToken: token, LeaseDuration: lease, Renewable: !a.fixed}})
	return string(text)
}

// with runs a backend on an authority in a bubble.
func with(t *testing.T, a *authority, play func(t *testing.T, b *Backend, sign func() error)) {
	t.Helper()
	a.roleID = filepath.Join(t.TempDir(), "role-id")
	writeRoleID(t, a, "a role")
	synctest.Test(t, func(t *testing.T) {
		a.born = map[string]time.Time{}
		opts := Options{Address: "https://vault.example", Auth: "approle", RoleIDFile: a.roleID, Logger: slog.New(slog.DiscardHandler)}.complete()
		c, err := newClient(opts)
		if err != nil {
			t.Fatal(err)
		}
		c.http.Transport = a
		b, err := start(t.Context(), opts, c)
		if err != nil {
			t.Fatal(err)
		}
		h := &handle{backend: b, name: "zonemint-x", algorithm: signer.EdDSA}
		play(t, b, func() error {
			_, err := h.Sign(t.Context(), signer.EdDSA, []byte("x"))
			return err
		})
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		synctest.Wait()
	})
}

func writeRoleID(t *testing.T, a *authority, id string) {
	t.Helper()
	if err := os.WriteFile(a.roleID, []byte(id), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (a *authority) set(change func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	change()
}

// TestTokensAreRenewed lets a token come to its greatest age under a request a
// second, none of which may notice.
func TestTokensAreRenewed(t *testing.T) {
	a := &authority{lease: 60, max: 10 * time.Minute}
	with(t, a, func(t *testing.T, b *Backend, sign func() error) {
		for second := range 3600 {
			if err := sign(); err != nil {
				t.Fatalf("second %d: %v", second, err)
			}
			time.Sleep(time.Second)
		}
		st := b.Stats()
		if st.Logins < 6 || st.Logins > 8 || st.Renewals < 80 || st.Renewals > 120 || st.LoginFailures+st.RenewalFailures != 0 {
			t.Errorf("in an hour of tokens that live for ten minutes: %+v", st)
		}
		if left := time.Until(st.TokenExpires); left < 0 || left > time.Minute {
			t.Errorf("the token expires in %v", left)
		}
	})
}

// TestBatchTokensAreReplaced is the same for tokens that cannot be renewed.
func TestBatchTokensAreReplaced(t *testing.T) {
	a := &authority{lease: 60, fixed: true}
	with(t, a, func(t *testing.T, b *Backend, sign func() error) {
		for range 600 {
			if err := sign(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		if st := b.Stats(); st.Renewals != 0 || st.Logins < 15 || st.Logins > 18 {
			t.Errorf("%+v", st)
		}
	})
}

// TestRevokedUnderLoad has many requests find out at once that the token is gone.
func TestRevokedUnderLoad(t *testing.T) {
	a := &authority{lease: 3600, max: time.Hour, latency: 10 * time.Millisecond}
	with(t, a, func(t *testing.T, b *Backend, sign func() error) {
		if err := sign(); err != nil {
			t.Fatal(err)
		}
		a.set(func() { a.good = "none" })
		var wg sync.WaitGroup
		for range 200 {
			wg.Go(func() {
				if err := sign(); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if st := b.Stats(); st.Logins != 2 {
			t.Errorf("%d log-ins, want the first and one more", st.Logins)
		}
	})
}

// TestLoginsAreBounded has a server refuse to log anybody in under load.
func TestLoginsAreBounded(t *testing.T) {
	a := &authority{status: 503}
	with(t, a, func(t *testing.T, b *Backend, sign func() error) {
		for range 1000 {
			if err := sign(); codeOf(err) != signer.Unavailable {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Millisecond)
		}
		if n := b.Stats().LoginFailures; n > 30 {
			t.Errorf("%d log-ins in ten seconds of a thousand requests", n)
		}
		a.set(func() { a.status, a.lease, a.max = 0, 60, time.Hour })
		time.Sleep(loginPause)
		if err := sign(); err != nil {
			t.Errorf("half a second after the server came back: %v", err)
		}
	})
}

// TestRefusedCredentialsLockNobodyOut has a server refuse the credential under load:
// five times in a quarter of an hour would lock the role out. Another credential is
// tried at once.
func TestRefusedCredentialsLockNobodyOut(t *testing.T) {
	a := &authority{status: 400}
	with(t, a, func(t *testing.T, _ *Backend, sign func() error) {
		for range 14 * 60 {
			if err := sign(); codeOf(err) != signer.Denied {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		if a.tries > 4 {
			t.Errorf("%d log-ins with the same credential in 14 minutes", a.tries)
		}
		a.set(func() { a.status, a.lease, a.max = 0, 60, time.Hour })
		writeRoleID(t, a, "another role")
		time.Sleep(loginPause)
		if err := sign(); err != nil {
			t.Errorf("with another credential: %v", err)
		}
	})
}

// TestRenewalSurvivesAnOutage seals the server for most of a lease.
func TestRenewalSurvivesAnOutage(t *testing.T) {
	a := &authority{lease: 3600, max: 240 * time.Hour}
	with(t, a, func(t *testing.T, b *Backend, sign func() error) {
		if err := sign(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(30 * time.Minute)
		a.set(func() { a.status = 503 })
		time.Sleep(20 * time.Minute)
		a.set(func() { a.status = 0 })
		time.Sleep(time.Minute)
		st := b.Stats()
		if st.Logins != 1 || st.Renewals != 1 || st.RenewalFailures == 0 || st.RenewalFailures > 60 {
			t.Errorf("%+v", st)
		}
		if err := sign(); err != nil {
			t.Error(err)
		}
	})
}

// TestDeniedIsNotAStorm has a policy deny what a good token asks for.
func TestDeniedIsNotAStorm(t *testing.T) {
	a := &authority{lease: 36000, max: 240 * time.Hour}
	with(t, a, func(t *testing.T, b *Backend, sign func() error) {
		if err := sign(); err != nil {
			t.Fatal(err)
		}
		denied := refusal(request{op: "sign"}, 403, nil, []byte(`{"errors":["permission denied"]}`))
		logins := 0
		for range 600 { // a request a second, for ten minutes
			if h := b.session.current(); b.session.outlived(h, denied) {
				logins++
				if _, err := b.session.fresh(t.Context(), h.generation); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(time.Second)
		}
		if logins < 5 || logins > 10 {
			t.Errorf("%d log-ins in ten minutes", logins)
		}
	})
}

// TestCloseEndsALogin closes while a log-in hangs.
func TestCloseEndsALogin(t *testing.T) {
	a := &authority{latency: time.Hour}
	with(t, a, func(t *testing.T, b *Backend, sign func() error) {
		done := make(chan error, 1)
		go func() { done <- sign() }()
		time.Sleep(time.Millisecond)
		began := time.Now()
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		if err := <-done; codeOf(err) != signer.Closed && codeOf(err) != signer.Unavailable {
			t.Error(err)
		}
		if waited := time.Since(began); waited > time.Second {
			t.Errorf("closing took %v", waited)
		}
		if err := sign(); codeOf(err) != signer.Closed {
			t.Error(err)
		}
	})
}
