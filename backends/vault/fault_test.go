package vault_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zonemint/zonemint/backends/vault"
	"github.com/zonemint/zonemint/signer"
)

// back is how soon after the server's return signatures have to be made again. A
// machine that stands still meanwhile gets as many attempts as one that does not.
const (
	back     = 2 * time.Second
	attempts = 50
)

// patience is for machines with much else to do.
const patience = 2 * time.Minute

func newKey(tb testing.TB, b *vault.Backend, alg signer.Algorithm) (*signer.Key, signer.Spec, signer.Ref) {
	tb.Helper()
	s := signer.Spec{Keyset: "zone", Serial: 1, Label: signer.NewLabel(), Algorithm: alg}
	ref, err := signer.Create(tb.Context(), b, s)
	if err != nil {
		tb.Fatal(err)
	}
	key, err := signer.Open(tb.Context(), b, s, ref, nil)
	if err != nil {
		tb.Fatal(err)
	}
	return key, s, ref
}

// rooted has the root token of s, at another address if there is one.
func rooted(tb testing.TB, s *server, address string) vault.Options {
	tb.Helper()
	if address == "" {
		address = s.url()
	}
	return vault.Options{Address: address, Auth: "token", TokenFile: writeFile(tb, s.root)}
}

// within is how long a signature may take.
const within = 10 * time.Second

// sign signs. Whatever comes back was verified by package signer.
func sign(tb testing.TB, key *signer.Key) error {
	ctx, cancel := context.WithTimeout(tb.Context(), within)
	defer cancel()
	_, err := key.SignJWS(ctx, []byte("header.payload"))
	return err
}

// comesBack fails the test unless the key signs within two seconds.
func comesBack(tb testing.TB, key *signer.Key) {
	tb.Helper()
	began := time.Now()
	for n := 1; ; n++ {
		err := sign(tb, key)
		if err == nil {
			return
		}
		if time.Since(began) > back && n > attempts {
			tb.Fatalf("still not signing %v after the server came back: %v", time.Since(began), err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// load signs from several goroutines until stop is called, which returns how
// many signatures were made and what the others failed with.
func load(tb testing.TB, key *signer.Key) (stop func() (made int64, failures map[signer.Code]int)) {
	tb.Helper()
	var (
		wg       sync.WaitGroup
		mu       sync.Mutex
		made     atomic.Int64
		end      = make(chan struct{})
		failures = map[signer.Code]int{}
	)
	for range 8 {
		wg.Go(func() {
			for {
				select {
				case <-end:
					return
				case <-time.After(5 * time.Millisecond):
				}
				began := time.Now()
				if err := sign(tb, key); err != nil {
					mu.Lock()
					failures[signer.CodeOf(err)]++
					mu.Unlock()
				} else {
					made.Add(1)
				}
				if took := time.Since(began); took > 3*within {
					tb.Errorf("a call with a deadline of %v took %v", within, took)
				}
			}
		})
	}
	return func() (int64, map[signer.Code]int) {
		close(end)
		wg.Wait()
		return made.Load(), failures
	}
}

// onlyUnavailable says whether nothing failed in another way.
func onlyUnavailable(tb testing.TB, failures map[signer.Code]int) {
	tb.Helper()
	if n := failures[signer.Unavailable]; n == 0 || len(failures) > 1 {
		tb.Errorf("failures while the server was away: %v, want unavailable and nothing else", failures)
	}
}

func TestSealedAndUnsealed(t *testing.T) {
	s := startDurable(t)
	key, _, _ := newKey(t, open(t, rooted(t, s, "")), signer.ES256)
	stop := load(t, key)
	s.must(t, "PUT", "sys/seal", nil)
	for range 20 {
		if err := sign(t, key); signer.CodeOf(err) != signer.Unavailable {
			t.Errorf("sealed: %v", err)
		}
	}
	s.open(t)
	comesBack(t, key)
	_, failures := stop()
	onlyUnavailable(t, failures)
}

func TestKilledAndRestarted(t *testing.T) {
	s := startDurable(t)
	roleID, secretFile, _ := s.appRole(t, vault.Policy("", "", vault.Rights{Create: true}), nil)
	b := open(t, vault.Options{Address: s.url(), Auth: "approle", RoleID: roleID, SecretIDFile: secretFile})
	key, _, _ := newKey(t, b, signer.ES256)
	stop := load(t, key)
	s.kill(t)
	for range 20 {
		if err := sign(t, key); signer.CodeOf(err) != signer.Unavailable {
			t.Errorf("killed: %v", err)
		}
	}
	s.start(t)
	if err := sign(t, key); signer.CodeOf(err) != signer.Unavailable {
		t.Errorf("restarted and sealed: %v", err)
	}
	s.open(t)
	comesBack(t, key)
	_, failures := stop()
	onlyUnavailable(t, failures)
	if n := b.Stats().Logins; n != 1 {
		t.Errorf("%d log-ins: tokens outlive a restart", n)
	}
}

// TestIdleConnectionsOutliveNothing restarts the server between two requests.
func TestIdleConnectionsOutliveNothing(t *testing.T) {
	s := startDurable(t)
	key, _, _ := newKey(t, open(t, rooted(t, s, "")), signer.ES256)
	var wg sync.WaitGroup
	for range 16 { // leaves several idle connections
		wg.Go(func() { _ = sign(t, key) })
	}
	wg.Wait()
	s.kill(t)
	s.start(t)
	s.open(t)
	for i := range 20 {
		if err := sign(t, key); err != nil {
			t.Errorf("signature %d after a restart that nobody noticed: %v", i, err)
		}
	}
}

func TestTokenRevokedUnderLoad(t *testing.T) {
	s := startDev(t)
	roleID, secretFile, _ := s.appRole(t, vault.Policy("", "", vault.Rights{Create: true}), nil)
	b := open(t, vault.Options{Address: s.url(), Auth: "approle", RoleID: roleID, SecretIDFile: secretFile})
	key, _, _ := newKey(t, b, signer.ES256)
	stop := load(t, key)
	for range 3 {
		s.revokeAppRoleTokens(t)
		comesBack(t, key)
	}
	if made, failures := stop(); made == 0 || len(failures) > 0 {
		t.Errorf("%d signatures, failures: %v", made, failures)
	}
	if n := b.Stats().Logins; n != 4 {
		t.Errorf("%d log-ins for three revocations", n)
	}
}

// revokeAppRoleTokens returns how many there were.
func (s *server) revokeAppRoleTokens(tb testing.TB) (n int) {
	tb.Helper()
	for _, accessor := range s.data(tb, "LIST", "auth/token/accessors", nil)["keys"].([]any) {
		status, said, err := s.try("POST", "auth/token/lookup-accessor", map[string]any{"accessor": accessor})
		if err != nil || status != http.StatusOK {
			continue // it has expired meanwhile
		}
		if said["data"].(map[string]any)["path"] == "auth/approle/login" {
			s.must(tb, "POST", "auth/token/revoke-accessor", map[string]any{"accessor": accessor})
			n++
		}
	}
	return n
}

// TestTokenFileIsReadAgain revokes the token in a file after another one was
// put there, as agents do.
func TestTokenFileIsReadAgain(t *testing.T) {
	s := startDev(t)
	child := func() string {
		return s.must(t, "POST", "auth/token/create", map[string]any{"ttl": "1h"})["auth"].(map[string]any)["client_token"].(string)
	}
	first := child()
	o := rooted(t, s, "")
	write := func(token string) { rename(t, writeFile(t, token), o.TokenFile) }
	write(first)
	b := open(t, o)
	key, _, _ := newKey(t, b, signer.ES256)
	write(child())
	s.must(t, "POST", "auth/token/revoke", map[string]any{"token": first})
	if err := sign(t, key); err != nil {
		t.Error(err)
	}
	write(first)
	s.revokeOthers(t)
	err := sign(t, key)
	if signer.CodeOf(err) != signer.Denied || strings.Contains(err.Error(), "hvs.") {
		t.Errorf("with a token that is no longer good in the file: %v", err)
	}
}

// revokeOthers revokes all tokens that the root token made.
func (s *server) revokeOthers(tb testing.TB) {
	tb.Helper()
	for _, accessor := range s.data(tb, "LIST", "auth/token/accessors", nil)["keys"].([]any) {
		_, said, err := s.try("POST", "auth/token/lookup-accessor", map[string]any{"accessor": accessor})
		if data, ok := said["data"].(map[string]any); err == nil && ok && data["id"] != "root" && data["ttl"].(float64) > 0 {
			s.must(tb, "POST", "auth/token/revoke-accessor", map[string]any{"accessor": accessor})
		}
	}
}

// TestShortLives signs under tokens that live for two seconds and four at most.
func TestShortLives(t *testing.T) {
	s := startDev(t)
	roleID, secretFile, _ := s.appRole(t, vault.Policy("", "", vault.Rights{Create: true}), map[string]any{"token_ttl": "2s", "token_max_ttl": "4s"})
	b := open(t, vault.Options{Address: s.url(), Auth: "approle", RoleID: roleID, SecretIDFile: secretFile})
	key, _, _ := newKey(t, b, signer.ES256)
	stop := load(t, key)
	for began := time.Now(); b.Stats().Logins < 3 || b.Stats().Renewals < 2; time.Sleep(50 * time.Millisecond) {
		if time.Since(began) > patience {
			t.Fatalf("after %v: %+v", time.Since(began), b.Stats())
		}
	}
	if made, failures := stop(); made == 0 || len(failures) > 0 {
		t.Errorf("%d signatures, failures: %v", made, failures)
	}
}

func TestSlowServer(t *testing.T) {
	s := startDev(t)
	p := startProxy(t, s.addr)
	key, _, _ := newKey(t, open(t, rooted(t, s, p.url())), signer.ES256)
	p.set(func() { p.delay = 500 * time.Millisecond })
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := key.SignJWS(ctx, []byte("header.payload"))
	if signer.CodeOf(err) != signer.Unavailable || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with less time than it takes: %v", err)
	}
	if err := key.Probe(t.Context()); err != nil {
		t.Errorf("with time enough: %v", err)
	}
	p.set(func() { p.delay = 0 })
	comesBack(t, key)
}

// TestCutInTheMiddle ends the connection after each number of bytes of an
// answer, and takes up signing at once.
func TestCutInTheMiddle(t *testing.T) {
	s := startDev(t)
	p := startProxy(t, s.addr)
	key, _, _ := newKey(t, open(t, rooted(t, s, p.url())), signer.ES256)
	for cutAt := 1; cutAt < 600; cutAt += 37 {
		p.set(func() { p.cutAt = cutAt })
		if err := sign(t, key); err != nil && signer.CodeOf(err) != signer.Unavailable {
			t.Errorf("cut after %d bytes: %v", cutAt, err)
		} else if err == nil && cutAt < 300 {
			t.Errorf("cut after %d bytes, and yet signed", cutAt)
		}
		p.set(func() { p.cutAt = 0 })
		if err := sign(t, key); err != nil {
			t.Errorf("right after a cut: %v", err)
		}
	}
	p.cut()
	if err := sign(t, key); err != nil {
		t.Errorf("after all idle connections were ended: %v", err)
	}
}

// TestHangsNoLonger stalls the server for longer than the request may take.
func TestHangsNoLonger(t *testing.T) {
	s := startDev(t)
	p := startProxy(t, s.addr)
	o := rooted(t, s, p.url())
	patient, sp, ref := newKey(t, open(t, o), signer.ES256)
	o.RequestTimeout = 300 * time.Millisecond
	key, err := signer.Open(t.Context(), open(t, o), sp, ref, patient.Public())
	if err != nil {
		t.Fatal(err)
	}
	flow := p.stall()
	began := time.Now()
	err = key.Probe(t.Context())
	took := time.Since(began)
	flow()
	if signer.CodeOf(err) != signer.Unavailable || took > patience/4 {
		t.Errorf("after %v: %v", took, err)
	}
	comesBack(t, key)
}

// TestOthersTouchTheKey plays what other people with rights on the engine may do.
func TestOthersTouchTheKey(t *testing.T) {
	s := startDev(t)
	var log strings.Builder
	o := rooted(t, s, "")
	o.Logger = slog.New(slog.NewTextHandler(&log, nil))
	b := open(t, o)
	for _, alg := range []signer.Algorithm{signer.RS256, signer.PS256, signer.ES384, signer.EdDSA} {
		key, sp, ref := newKey(t, b, alg)
		path := "transit/keys/" + keyOf(ref)
		for range 2 {
			s.must(t, "POST", path+"/rotate", nil)
		}
		if err := sign(t, key); err != nil {
			t.Errorf("%s: rotated by somebody else: %v", alg, err)
		}
		again, err := signer.Open(t.Context(), b, sp, ref, nil)
		if err != nil || !signer.SamePublicKey(again.Public(), key.Public()) {
			t.Errorf("%s: rotated by somebody else, it reads as another key: %v", alg, err)
		}
		if refs, err := signer.Find(t.Context(), b, sp); err != nil || len(refs) != 1 || !signer.SameRef(refs[0], ref) {
			t.Errorf("%s: found %q, %v", alg, refs, err)
		}
		s.must(t, "POST", path+"/config", map[string]any{"min_encryption_version": 2})
		if err := sign(t, key); signer.CodeOf(err) != signer.Denied {
			t.Errorf("%s: barred by somebody else: %v", alg, err)
		}
		s.must(t, "POST", path+"/config", map[string]any{"min_encryption_version": 3, "min_decryption_version": 3})
		_, err = signer.Open(t.Context(), b, sp, ref, nil)
		if signer.CodeOf(err) != signer.NotFound {
			t.Errorf("%s: archived by somebody else: %v", alg, err)
		}
		s.must(t, "POST", path+"/config", map[string]any{"min_encryption_version": 1, "min_decryption_version": 1})
		if err := sign(t, key); err != nil {
			t.Errorf("%s: after that was undone: %v", alg, err)
		}
	}
	if strings.Contains(log.String(), "level=WARN") {
		t.Errorf("warned of nothing: %s", log.String())
	}
	_, sp, ref := newKey(t, b, signer.ES256)
	s.must(t, "POST", "transit/keys/"+keyOf(ref)+"/config", map[string]any{"exportable": true})
	if _, err := signer.Open(t.Context(), b, sp, ref, nil); err != nil {
		t.Error(err)
	}
	if !strings.Contains(log.String(), "can be copied") || !strings.Contains(log.String(), keyOf(ref)) {
		t.Errorf("no warning of a key that can be exported: %s", log.String())
	}
}

// TestPlantedKeys has somebody make the key before zonemint does.
func TestPlantedKeys(t *testing.T) {
	s := startDev(t)
	b := open(t, rooted(t, s, ""))
	for name, planted := range map[string]map[string]any{
		"of another type":        {"type": "rsa-2048"},
		"that can be exported":   {"type": "ecdsa-p256", "exportable": true},
		"that can be backed up":  {"type": "ecdsa-p256", "allow_plaintext_backup": true},
		"that is no key to sign": {"type": "aes256-gcm96"},
	} {
		sp := signer.Spec{Keyset: "zone", Serial: 1, Label: signer.NewLabel(), Algorithm: signer.ES256}
		s.must(t, "POST", fmt.Sprintf("transit/keys/%s.zone.1.ES256", sp.Label), planted)
		if _, err := signer.Create(t.Context(), b, sp); signer.CodeOf(err) != signer.Corrupt {
			t.Errorf("a key %s: %v", name, err)
		}
	}
	sp := signer.Spec{Keyset: "zone", Serial: 1, Label: signer.NewLabel(), Algorithm: signer.ES256}
	first, err := signer.Create(t.Context(), b, sp)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := signer.Create(t.Context(), b, sp); err != nil || !signer.SameRef(first, again) {
		t.Errorf("created twice: %q and %q, %v", first, again, err)
	}
}

// TestOneRequestPerToken counts on the way, and not in the backend.
func TestOneRequestPerToken(t *testing.T) {
	s := startDev(t)
	var mu sync.Mutex
	var paths []string
	target, _ := url.Parse(s.url())
	forward := httputil.NewSingleHostReverseProxy(target)
	counting := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		paths = append(paths, r.Method+" "+r.URL.Path)
		mu.Unlock()
		forward.ServeHTTP(w, r)
	}))
	defer counting.Close()
	b := open(t, rooted(t, s, counting.URL))
	key, sp, ref := newKey(t, b, signer.ES256)
	mu.Lock()
	paths = nil
	mu.Unlock()
	again, err := signer.Open(t.Context(), b, sp, ref, key.Public())
	if err != nil {
		t.Fatal(err)
	}
	const tokens = 100
	for range tokens {
		if err := sign(t, again); err != nil {
			t.Fatal(err)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if len(paths) != tokens {
		t.Errorf("%d requests for %d tokens", len(paths), tokens)
	}
	for _, p := range paths {
		if want := "POST /v1/transit/sign/" + keyOf(ref) + "/sha2-256"; p != want {
			t.Errorf("%s, want %s", p, want)
		}
	}
}

// TestRealBatch signs many at once, verifies each, and has one key gone.
func TestRealBatch(t *testing.T) {
	s := startDev(t)
	b := open(t, rooted(t, s, ""))
	for _, alg := range []signer.Algorithm{signer.RS256, signer.PS256, signer.ES256, signer.EdDSA} {
		_, sp, ref := newKey(t, b, alg)
		h, err := b.Open(t.Context(), sp, ref)
		if err != nil {
			t.Fatal(err)
		}
		public, err := h.Public(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ins := make([][]byte, 150)
		for i := range ins {
			ins[i] = hashed(alg, fmt.Sprint("message ", i))
		}
		before := b.Stats().Requests
		sigs, errs := h.(batcher).SignBatch(t.Context(), alg, ins)
		if n := b.Stats().Requests - before; n != 3 {
			t.Errorf("%s: %d requests for 150 signatures", alg, n)
		}
		for i := range ins {
			if errs[i] != nil || !verifies(public, alg, ins[i], sigs[i]) {
				t.Fatalf("%s: signature %d: %v", alg, i, errs[i])
			}
		}
		if err := signer.Destroy(t.Context(), b, sp, ref); err != nil {
			t.Fatal(err)
		}
		_, errs = h.(batcher).SignBatch(t.Context(), alg, ins[:2])
		if b.Code(errs[0]) != signer.NotFound || b.Code(errs[1]) != signer.NotFound {
			t.Errorf("%s: with the key gone: %v", alg, errs)
		}
	}
}
