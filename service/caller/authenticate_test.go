package caller_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/zonemint/zonemint/service/caller"
	"github.com/zonemint/zonemint/store"
)

// fakeStore remembers API tokens and counts how often it is asked.
type fakeStore struct {
	mu     sync.Mutex
	tokens []store.APIToken
	asked  int
	down   error
	now    time.Time
}

func (f *fakeStore) APITokenByHash(_ context.Context, hash []byte) (store.APIToken, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	if f.down != nil {
		return store.APIToken{}, f.down
	}
	for _, t := range f.tokens {
		if slices.Equal(t.Hash, hash) {
			return t, nil
		}
	}
	return store.APIToken{}, store.ErrNotFound
}

func (f *fakeStore) CreateAPIToken(_ context.Context, t store.APIToken, validFor time.Duration, by store.Actor) (store.APIToken, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t.ID, t.CreatedAt, t.ExpiresAt, t.CreatedBy = uuid.New(), f.now, f.now.Add(validFor), by.Name
	f.tokens = append(f.tokens, t)
	return t, nil
}

func (f *fakeStore) revoke(id uuid.UUID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.tokens {
		if f.tokens[i].ID == id {
			f.tokens[i].RevokedAt = f.now
		}
	}
}

// gate is an authenticator on a fake store with one API token, valid for an hour.
type gate struct {
	*fakeStore
	*caller.Authenticator
	header string
	id     uuid.UUID
}

func newGate(t *testing.T) *gate {
	t.Helper()
	f := &fakeStore{now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	text, token, err := caller.Create(t.Context(), f, store.APIToken{Name: "ci", Roles: []string{"issuer"}}, time.Hour, store.Actor{Name: "cli/x"})
	if err != nil {
		t.Fatal(err)
	}
	a := &caller.Authenticator{Store: f, Now: func() time.Time { return f.now }}
	return &gate{f, a, "Bearer " + text, token.ID}
}

// check authenticates and compares the outcome and whether the store was asked.
func (g *gate) check(t *testing.T, recent bool, wantErr error, wantAsked bool) {
	t.Helper()
	before := g.asked
	who, err := g.Authenticate(t.Context(), g.header, recent)
	if !errors.Is(err, wantErr) {
		t.Errorf("%v, want %v", err, wantErr)
	}
	if asked := g.asked != before; asked != wantAsked {
		t.Errorf("the store was asked: %t, want %t", asked, wantAsked)
	}
	if (err == nil) != (who.TokenID() == g.id) || (err == nil) != (who.Name == "api-token/"+g.id.String()) {
		t.Errorf("%v with caller %q", err, who.Name)
	}
}

func TestHeaders(t *testing.T) {
	g := newGate(t)
	text := strings.TrimPrefix(g.header, "Bearer ")
	for _, good := range []string{"Bearer " + text, "bearer " + text, "BEARER   " + text + " "} {
		if _, err := g.Authenticate(t.Context(), good, false); err != nil {
			t.Errorf("%d characters: %v", len(good), err)
		}
	}
	asked := g.asked
	for _, bad := range []string{
		"", "Bearer", "Bearer ", text, "Basic " + text, "Bearer" + text, "Bearer\t" + text, "Bearer x", "Bearer " + text[1:],
		"Bearer " + text + ", Bearer " + text, "Bearer " + text + " " + text, "Bearer zmt_" + strings.Repeat("a", 58),
		strings.Repeat("Bearer ", 1000),
	} {
		who, err := g.Authenticate(t.Context(), bad, true)
		if !errors.Is(err, caller.ErrUnauthenticated) || who.Name != "" {
			t.Errorf("%.20q: %v", bad, err)
		}
		if err != nil && strings.Contains(err.Error(), text[4:12]) {
			t.Errorf("the error quotes the token: %v", err)
		}
	}
	if g.asked != asked {
		t.Error("the store was asked about a malformed token")
	}
}

func TestRecentIsRemembered(t *testing.T) {
	g := newGate(t)
	g.check(t, true, nil, true)
	g.check(t, true, nil, false)
	g.check(t, false, nil, true) // what is not checked again later must be fresh
	g.now = g.now.Add(29 * time.Second)
	g.check(t, true, nil, false)
	g.now = g.now.Add(time.Second)
	g.check(t, true, nil, true)
	g.now = g.now.Add(-time.Minute) // set back
	g.check(t, true, nil, true)
}

func TestRevoked(t *testing.T) {
	g := newGate(t)
	g.check(t, true, nil, true)
	g.revoke(g.id)
	g.check(t, true, nil, false) // the ledger's transaction refuses it
	g.Forget(g.id)
	g.check(t, true, caller.ErrUnauthenticated, true)
	g.check(t, true, caller.ErrUnauthenticated, false) // remembered as revoked
	g.check(t, false, caller.ErrUnauthenticated, true)
}

func TestRevokedIsSeenAtOnceWithoutRecent(t *testing.T) {
	g := newGate(t)
	g.check(t, true, nil, true)
	g.revoke(g.id)
	g.check(t, false, caller.ErrUnauthenticated, true)
	g.check(t, true, caller.ErrUnauthenticated, false)
}

func TestExpired(t *testing.T) {
	g := newGate(t)
	g.now = g.now.Add(time.Hour - time.Nanosecond)
	g.check(t, true, nil, true)
	g.now = g.now.Add(time.Nanosecond)
	g.check(t, true, caller.ErrUnauthenticated, false)
	g.check(t, false, caller.ErrUnauthenticated, true)
}

// A caller who stays is looked at again, by an answer that is not too old.
func TestAgain(t *testing.T) {
	g := newGate(t)
	who, err := g.Authenticate(t.Context(), g.header, false)
	if err != nil {
		t.Fatal(err)
	}
	check := func(wantErr error, wantAsked bool) {
		t.Helper()
		before := g.asked
		if err := g.Again(t.Context(), who, 10*time.Second); !errors.Is(err, wantErr) {
			t.Errorf("%v, want %v", err, wantErr)
		}
		if asked := g.asked != before; asked != wantAsked {
			t.Errorf("the store was asked: %t, want %t", asked, wantAsked)
		}
	}
	check(nil, false)
	g.now = g.now.Add(10 * time.Second)
	check(nil, true)
	check(nil, false)
	g.revoke(g.id)
	check(nil, false)
	g.now = g.now.Add(10 * time.Second)
	check(caller.ErrUnauthenticated, true)
	g.down = store.ErrUnavailable
	g.now = g.now.Add(10 * time.Second)
	check(store.ErrUnavailable, true)
	g.now = g.now.Add(time.Hour)
	check(caller.ErrUnauthenticated, true) // expired, which needs no database
	if err := g.Again(t.Context(), who, 10*time.Second); errors.Is(err, store.ErrUnavailable) {
		t.Errorf("%v has a text that is not for callers", err)
	}
	g.down, g.tokens = nil, nil
	check(caller.ErrUnauthenticated, true)
	if err := g.Again(t.Context(), caller.Caller{Name: "other"}, time.Hour); !errors.Is(err, caller.ErrUnauthenticated) {
		t.Errorf("a caller without an API token: %v", err)
	}
}

func TestUnknown(t *testing.T) {
	g := newGate(t)
	g.check(t, true, nil, true)
	g.tokens = nil
	g.check(t, false, caller.ErrUnauthenticated, true)
	g.check(t, true, caller.ErrUnauthenticated, true) // and it has been forgotten
}

func TestDatabaseDown(t *testing.T) {
	g := newGate(t)
	g.down = store.ErrUnavailable
	g.check(t, true, store.ErrUnavailable, true)
	if _, err := g.Authenticate(t.Context(), g.header, true); errors.Is(err, caller.ErrUnauthenticated) {
		t.Error("an outage is not the caller's fault")
	}
	g.down = nil
	g.check(t, true, nil, true)
	g.down = store.ErrUnavailable
	g.check(t, true, nil, false)
	g.check(t, false, store.ErrUnavailable, true)
}

func TestAuthenticateConcurrently(t *testing.T) {
	g := newGate(t)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for range 100 {
				if _, err := g.Authenticate(t.Context(), g.header, i%2 == 0); err != nil {
					t.Error(err)
				}
				g.Forget(g.id)
			}
		})
	}
	wg.Wait()
}
