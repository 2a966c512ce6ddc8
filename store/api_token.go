package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
)

// APIToken is what is remembered of an API token. The token itself is not.
type APIToken struct {
	ID      uuid.UUID
	Name    string
	Hash    []byte // SHA-256 of the token's secret
	Roles   []string
	Keysets []string // empty: all
	Zones   []string // empty: all
	Scopes  []string // empty: all
	// Dataplanes narrows an issuer to tokens of dataplanes with these names, or
	// with names that begin so and a "*". Empty: it is not narrowed to them.
	Dataplanes  []string
	MaxValidFor time.Duration
	CreatedBy   string
	CreatedAt   time.Time
	ExpiresAt   time.Time
	RevokedAt   time.Time // zero: not revoked
	Version     int64
	MAC         []byte
}

// CreateAPIToken remembers an API token that is valid for the given time.
func (d *DB) CreateAPIToken(ctx context.Context, t APIToken, validFor time.Duration, by Actor) (APIToken, error) {
	if t.MaxValidFor%time.Second != 0 {
		// Seconds are what is stored, and a fraction would not match the MAC.
		return t, fmt.Errorf("API token %s: the lifetime %s is not in whole seconds: %w", t.Name, t.MaxValidFor, ErrRejected)
	}
	err := d.act(ctx, by, func(tx Tx, now time.Time) (_ deed, err error) {
		if t.ID, err = uuid.NewV7(); err != nil {
			return deed{}, err
		}
		t.CreatedAt, t.ExpiresAt, t.CreatedBy, t.Version = now, now.Add(validFor), by.Name, 1
		if err := d.seal.sealToken(&t); err != nil {
			return deed{}, err
		}
		return deed{"api-token.create", t.ID.String(), map[string]any{
			"name": t.Name, "roles": t.Roles, "keysets": t.Keysets, "zones": t.Zones, "scopes": t.Scopes, "dataplanes": t.Dataplanes,
			"max_valid_for": t.MaxValidFor.String(), "expires_at": t.ExpiresAt,
		}}, tx.InsertAPIToken(ctx, t)
	})
	return t, err
}

// APITokenByHash returns the token with that hash, also if it has expired or
// was revoked.
func (d *DB) APITokenByHash(ctx context.Context, hash []byte) (t APIToken, err error) {
	err = d.engine.View(ctx, func(tx Tx) (err error) {
		if t, err = tx.APITokenByHash(ctx, hash); err != nil {
			return err
		}
		return d.seal.checkToken(&t)
	})
	return t, err
}

// APITokens returns a page of tokens, newest first, those made before the token
// with the ID before; uuid.Max begins.
func (d *DB) APITokens(ctx context.Context, before uuid.UUID, limit int) (tokens []APIToken, err error) {
	var faults []error
	err = d.engine.View(ctx, func(tx Tx) (err error) {
		tokens, err = tx.APITokens(ctx, before, limit)
		tokens = keep(tokens, &faults, d.seal.checkToken)
		return err
	})
	return tokens, errors.Join(append(faults, err)...)
}

// RevokeAPIToken makes a token useless. From the moment it returns, no replica
// records a token for it. Revoking a revoked token changes nothing.
func (d *DB) RevokeAPIToken(ctx context.Context, id uuid.UUID, by Actor) (t APIToken, err error) {
	own := by.TokenID == id
	if own {
		by.TokenID = uuid.Nil // checked here: at the end of the act it is no good any more
	}
	err = d.act(ctx, by, func(tx Tx, now time.Time) (_ deed, err error) {
		if t, err = tx.LockAPIToken(ctx, id); err != nil {
			return deed{}, err
		}
		if err := d.seal.checkToken(&t); err != nil {
			return deed{}, err
		}
		if own && (!t.RevokedAt.IsZero() || !t.ExpiresAt.After(now)) {
			return deed{}, ErrCallerRefused
		}
		if !t.RevokedAt.IsZero() {
			return deed{}, nil
		}
		t.RevokedAt = now
		t.Version++
		if err := d.seal.sealToken(&t); err != nil {
			return deed{}, err
		}
		return deed{"api-token.revoke", t.ID.String(), map[string]any{"name": t.Name}}, tx.RevokeAPIToken(ctx, t)
	})
	return t, err
}

// EncodeList returns the form in which engines store a list of strings.
func EncodeList(list []string) string {
	if len(list) == 0 {
		return "[]"
	}
	b, err := json.Marshal(list)
	if err != nil {
		panic(fmt.Sprintf("store: a list of strings did not encode: %v", err)) // cannot happen
	}
	return string(b)
}

// DecodeList reads the form in which engines store a list of strings. What is
// not of that form is an empty list.
func DecodeList(text string) []string {
	var list []string
	if json.Unmarshal([]byte(text), &list) != nil {
		return nil
	}
	return list
}

// DecodeLists sets the lists of t from the form in which engines store them. It
// takes the MAC from a row with anything else in their place, so that the row
// is left out like any other that was tampered with.
func (t *APIToken) DecodeLists(roles, keysets, zones, scopes, dataplanes string) {
	for _, f := range []struct {
		text string
		list *[]string
	}{{roles, &t.Roles}, {keysets, &t.Keysets}, {zones, &t.Zones}, {scopes, &t.Scopes}, {dataplanes, &t.Dataplanes}} {
		if json.Unmarshal([]byte(f.text), f.list) != nil {
			t.MAC = nil
		}
	}
}
