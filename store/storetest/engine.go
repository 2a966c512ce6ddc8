package storetest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/zonemint/zonemint/store"
)

func testView(t *testing.T, h Harness) {
	w := newWorld(t, h)
	w.keyset(t, "zone", store.RolePrimary)
	err := w.Engine.View(t.Context(), func(tx store.Tx) error {
		before, err := tx.Installation(t.Context())
		if err != nil {
			return err
		}
		w.keyset(t, "user", store.RolePrimary)
		after, err := tx.Installation(t.Context())
		if err != nil {
			return err
		}
		keysets, err := tx.Keysets(t.Context())
		if err != nil {
			return err
		}
		keys, err := tx.LiveSigningKeys(t.Context())
		if err != nil {
			return err
		}
		if after.Generation != before.Generation || len(keysets) != 1 || len(keys) != 1 {
			t.Errorf("a view saw generations %d and %d, %d keysets, %d keys",
				before.Generation, after.Generation, len(keysets), len(keys))
		}
		if _, err := tx.BumpGeneration(t.Context()); err == nil {
			t.Error("a view could write")
		}
		return nil
	})
	if err != nil && !errors.Is(err, store.ErrUnavailable) { // the refused write may have ended the transaction
		t.Fatal(err)
	}
	if r := w.ring(t); len(r.Keysets) != 2 {
		t.Errorf("%d keysets, want 2", len(r.Keysets))
	}
}

func testUpdate(t *testing.T, h Harness) {
	w := newWorld(t, h)
	before := w.ring(t).Generation
	sentinel := errors.New("changed my mind")
	err := w.Engine.Update(t.Context(), func(tx store.Tx) error {
		if _, err := tx.BumpGeneration(t.Context()); err != nil {
			return err
		}
		return sentinel
	})
	wantErr(t, err, sentinel)
	if after := w.ring(t).Generation; after != before {
		t.Errorf("an update that failed took the generation from %d to %d", before, after)
	}
}

func testRevoked(t *testing.T, h Harness) {
	w := newWorld(t, h)
	ks, _ := w.keyset(t, "zone")
	other, _ := w.keyset(t, "user")
	const values = "'%s', '%s', %d, created_at, created_at, 'api-token/1', %s FROM installation"
	insert := "INSERT INTO revocations (keyset_id, jti, seq, expires_at, revoked_at, caller, lifted_at) SELECT " + values
	w.exec(t, insert, ks.ID, "revoked", 1, "NULL")
	w.exec(t, insert, ks.ID, "lifted", 2, "created_at")
	for _, c := range []struct {
		keyset uuid.UUID
		jti    string
		want   bool
	}{
		{ks.ID, "revoked", true}, {other.ID, "revoked", false}, {ks.ID, "lifted", false}, {ks.ID, "unknown", false},
	} {
		got, err := w.db.Revoked(t.Context(), c.keyset, c.jti)
		noErr(t, err)
		if got != c.want {
			t.Errorf("%s: revoked %t, want %t", c.jti, got, c.want)
		}
	}
}

// calls returns a call of every method.
func (w *world) calls(ctx context.Context, t *testing.T, id uuid.UUID, token store.APIToken) map[string]func() error {
	batch, link := rows(t, store.SigningKey{ID: id}, 1), newChain(t)
	return map[string]func() error{
		"Open":        func() error { _, err := store.Open(ctx, w.Engine, w.mac); return err },
		"Heartbeat":   func() error { _, err := w.db.Heartbeat(ctx, store.Replica{ID: id}, time.Minute); return err },
		"Leave":       func() error { return w.db.Leave(ctx, id) },
		"Maintain":    func() error { _, err := w.db.Maintain(ctx, retention); return err },
		"Now":         func() error { _, err := w.db.Now(ctx); return err },
		"AuditEvents": func() error { _, err := w.db.AuditEvents(ctx, store.AuditFilter{}, uuid.Max, 1); return err },
		"Revoked":     func() error { _, err := w.db.Revoked(ctx, id, "jti"); return err },
		"Revoke": func() error {
			_, err := w.db.Revoke(ctx, id, []store.Revoke{{JTI: "jti"}}, "", someone)
			return err
		},
		"RevokeMatching": func() error {
			_, _, err := w.db.RevokeMatching(ctx, store.LedgerFilter{}, nil, "", someone)
			return err
		},
		"CountMatching": func() error { _, err := w.db.CountMatching(ctx, store.LedgerFilter{}); return err },
		"Lift":          func() error { _, err := w.db.LiftRevocation(ctx, id, "jti", "", someone); return err },
		"Revocation":    func() error { _, err := w.db.Revocation(ctx, id, "jti"); return err },
		"Revocations":   func() error { _, err := w.db.Revocations(ctx, id, 0, 1); return err },
		"Feed":          func() error { _, err := w.db.RevocationFeed(ctx, id, store.FeedPosition{}, 1); return err },
		"FeedHeads":     func() error { _, err := w.db.FeedHeads(ctx); return err },
		"Issuances":     func() error { _, err := w.db.Issuances(ctx, store.LedgerFilter{}, uuid.Max, 1); return err },
		"LiveTokens":    func() error { _, err := w.db.LiveTokens(ctx, id); return err },
		"LoadRing":      func() error { _, err := w.db.LoadRing(ctx); return err },
		"CreateKeyset":  func() error { _, _, err := w.db.CreateKeyset(ctx, zoneKeyset("x"), nil, someone); return err },
		"SigningKeys":   func() error { _, err := w.db.SigningKeys(ctx, id); return err },
		"Claim":         func() error { _, err := w.db.ClaimSigningKey(ctx, id, id, time.Minute); return err },
		"Publish":       func() error { _, err := w.db.PublishSigningKey(ctx, id, 0, madeKey("x"), someone); return err },
		"Fail":          func() error { _, err := Move(ctx, w.db, store.SigningKey{ID: id}, store.StateFailed, ""); return err },
		"Activate":      func() error { _, err := Move(ctx, w.db, store.SigningKey{ID: id}, store.StateActive, ""); return err },
		"CreateToken":   func() error { _, err := w.db.CreateAPIToken(ctx, store.APIToken{}, time.Hour, someone); return err },
		"TokenByHash":   func() error { _, err := w.db.APITokenByHash(ctx, token.Hash); return err },
		"APITokens":     func() error { _, err := w.db.APITokens(ctx, uuid.Max, 1); return err },
		"RevokeToken":   func() error { _, err := w.db.RevokeAPIToken(ctx, token.ID, someone); return err },
		"Record":        func() error { _, _, err := w.db.Record(ctx, link, batch); return err },
		"Issuance":      func() error { _, err := w.db.Issuance(ctx, id); return err },
		"CheckLedger":   func() error { _, err := w.db.CheckLedger(ctx, retention, func(store.LedgerCheck) {}); return err },
	}
}

// soon is how long a call may take to notice that its context has ended. It is more
// than what a busy machine may pause for.
const soon = 10 * time.Second

// testEndedContext calls every method with a context that has ended.
func testEndedContext(t *testing.T, h Harness) {
	w := newWorld(t, h)
	_, keys := w.keyset(t, "zone", store.RolePrimary)
	token := w.apiToken(t, "ci", time.Hour)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, call := range w.calls(ctx, t, keys[0].ID, token) {
		start := time.Now()
		err := call()
		if took := time.Since(start); took > soon {
			t.Errorf("%s took %s to notice that the context had ended", name, took)
		}
		if !errors.Is(err, store.ErrUnavailable) || !errors.Is(err, context.Canceled) {
			t.Errorf("%s: got %v, want the context's error, as unavailable", name, err)
		}
	}
	if n := w.count(t, "ledger"); n != 0 {
		t.Errorf("%d rows were recorded", n)
	}
	w.activate(t, w.publish(t, keys[0])) // all is well with another context
}

// testContextWhileWaiting ends contexts of calls that wait for a lock.
func testContextWhileWaiting(t *testing.T, h Harness) {
	w := newWorld(t, h)
	key, token := w.activeKey(t, "zone"), w.apiToken(t, "ci", time.Hour)
	batch := rows(t, key, 1)
	batch[0].CallerToken = token.ID
	err := w.Engine.Update(t.Context(), func(tx store.Tx) error {
		if _, err := tx.LockAPIToken(t.Context(), token.ID); err != nil {
			return err
		}
		for name, call := range map[string]func(context.Context) error{
			"Record": func(ctx context.Context) error { _, _, err := w.db.Record(ctx, newChain(t), batch); return err },
			"Revoke": func(ctx context.Context) error { _, err := w.db.RevokeAPIToken(ctx, token.ID, someone); return err },
		} {
			start := time.Now()
			err := call(within(t, 50*time.Millisecond))
			if took := time.Since(start); took > soon {
				return fmt.Errorf("%s took %s to notice that the context had ended", name, took)
			}
			// A batch was sent already, and may be recorded yet.
			if !errors.Is(err, context.DeadlineExceeded) ||
				!errors.Is(err, store.ErrUnavailable) && !errors.Is(err, store.ErrUnknownOutcome) {
				return fmt.Errorf("%s: got %w, want the context's error", name, err)
			}
		}
		return nil
	})
	noErr(t, err)
	w.record(t, newChain(t), rows(t, key, 1))
}
