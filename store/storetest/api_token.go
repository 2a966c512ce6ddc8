package storetest

import (
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/zonemint/zonemint/store"
)

func testAPIToken(t *testing.T, h Harness) {
	w := newWorld(t, h)
	token := w.apiToken(t, "ci", time.Hour)
	if token.CreatedBy != someone.Name || token.ExpiresAt.Sub(token.CreatedAt) != time.Hour {
		t.Errorf("created %+v", token)
	}
	got, err := w.db.APITokenByHash(t.Context(), token.Hash)
	noErr(t, err)
	got.Scopes = token.Scopes // nil and empty mean the same
	if !reflect.DeepEqual(got, token) {
		t.Errorf("found\n%+v, created\n%+v", got, token)
	}
	_, err = w.db.APITokenByHash(t.Context(), []byte("no such hash"))
	wantErr(t, err, store.ErrNotFound)

	_, err = w.db.CreateAPIToken(t.Context(), store.APIToken{Name: "twin", Hash: token.Hash}, time.Hour, someone)
	wantErr(t, err, store.ErrExists)
	_, err = w.db.CreateAPIToken(t.Context(), store.APIToken{
		Name: "odd", Hash: []byte("odd"), MaxValidFor: time.Second / 2,
	}, time.Hour, someone)
	wantErr(t, err, store.ErrRejected)

	// Who looks it up decides what an expired token is worth.
	over := w.apiToken(t, "over", -time.Hour)
	got, err = w.db.APITokenByHash(t.Context(), over.Hash)
	noErr(t, err)
	if !got.ExpiresAt.Equal(over.ExpiresAt) {
		t.Errorf("the expired token expires at %s, want %s", got.ExpiresAt, over.ExpiresAt)
	}
	if actions := w.actions(t); !slices.Equal(actions, []string{"api-token.create", "api-token.create"}) {
		t.Errorf("the audit says %v", actions)
	}
}

func testRevokeAPIToken(t *testing.T, h Harness) {
	w := newWorld(t, h)
	token := w.apiToken(t, "ci", time.Hour)
	revoked, err := w.db.RevokeAPIToken(t.Context(), token.ID, someone)
	noErr(t, err)
	if revoked.RevokedAt.IsZero() || revoked.Version != token.Version+1 {
		t.Errorf("the revoked token is %+v", revoked)
	}
	again, err := w.db.RevokeAPIToken(t.Context(), token.ID, someone)
	noErr(t, err)
	if !reflect.DeepEqual(again, revoked) {
		t.Errorf("revoked again it is\n%+v, before it was\n%+v", again, revoked)
	}
	found, err := w.db.APITokenByHash(t.Context(), token.Hash)
	noErr(t, err)
	if !reflect.DeepEqual(found, again) {
		t.Errorf("found\n%+v, revoked\n%+v", found, again)
	}
	if actions := w.actions(t); !slices.Equal(actions, []string{"api-token.create", "api-token.revoke"}) {
		t.Errorf("the audit says %v", actions)
	}
	_, err = w.db.RevokeAPIToken(t.Context(), uuid.New(), someone)
	wantErr(t, err, store.ErrNotFound)
}

// testActOfRevoked wants an act to be refused that was asked for while the API
// token was good and is committed when it is not.
func testActOfRevoked(t *testing.T, h Harness) {
	w := newWorld(t, h)
	thief, over := w.apiToken(t, "thief", time.Hour), w.apiToken(t, "over", -time.Hour)
	as := func(token store.APIToken) store.Actor {
		return store.Actor{Name: "api-token/" + token.ID.String(), TokenID: token.ID}
	}
	_, err := w.db.CreateAPIToken(t.Context(), store.APIToken{Name: "one", Hash: []byte("one")}, time.Hour, as(thief))
	noErr(t, err)
	_, err = w.db.CreateAPIToken(t.Context(), store.APIToken{Name: "two", Hash: []byte("two")}, time.Hour, as(over))
	wantErr(t, err, store.ErrCallerRefused)

	_, err = w.db.RevokeAPIToken(t.Context(), thief.ID, as(thief)) // its own
	noErr(t, err)
	_, err = w.db.CreateAPIToken(t.Context(), store.APIToken{Name: "three", Hash: []byte("three")}, time.Hour, as(thief))
	wantErr(t, err, store.ErrCallerRefused)
	_, _, err = w.db.CreateKeyset(t.Context(), zoneKeyset("theirs"), nil, as(thief))
	wantErr(t, err, store.ErrCallerRefused)
	if _, err := w.db.APITokenByHash(t.Context(), []byte("three")); err == nil {
		t.Error("the refused API token exists")
	}
}

func testAPITokenPages(t *testing.T, h Harness) {
	w := newWorld(t, h)
	var want []string
	for i := range 7 {
		name := fmt.Sprintf("token %d", i)
		w.apiToken(t, name, time.Hour)
		want = slices.Insert(want, 0, name)
	}
	var got []string
	before := uuid.Max
	for {
		page, err := w.db.APITokens(t.Context(), before, 3)
		noErr(t, err)
		if len(page) == 0 {
			break
		}
		for _, token := range page {
			got = append(got, token.Name)
		}
		before = page[len(page)-1].ID
	}
	if !slices.Equal(got, want) {
		t.Errorf("the pages list %q, want %q", got, want)
	}
}
