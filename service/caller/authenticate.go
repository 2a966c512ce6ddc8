package caller

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/zonemint/zonemint/store"
)

// ErrUnauthenticated: there is no credential, or it is not good. The text says
// which and is meant for the caller.
var ErrUnauthenticated = errors.New("unauthenticated")

// Store is where API tokens are remembered; [store.DB] is one.
type Store interface {
	APITokenByHash(ctx context.Context, hash []byte) (store.APIToken, error)
	CreateAPIToken(ctx context.Context, t store.APIToken, validFor time.Duration, by store.Actor) (store.APIToken, error)
}

// Authenticator tells callers by their API tokens. It is safe for concurrent use.
type Authenticator struct {
	Store Store
	// Now is the clock that expiry is judged by.
	Now func() time.Time

	mu    sync.RWMutex
	known map[[sha256.Size]byte]sighting

	lasting lasting
}

// sighting is an API token as the database had it at some moment.
type sighting struct {
	token store.APIToken
	at    time.Time
}

const (
	// sightingAge bounds how old a remembered API token may be on the issuing
	// path. A revocation does not wait for it: the ledger's transaction checks
	// the API token again, in the database.
	sightingAge = 30 * time.Second
	maxSeen     = 10000
	// lookUpTimeout bounds a look into the database, for callers who set no
	// deadline of their own.
	lookUpTimeout = 5 * time.Second
)

// Authenticate tells the caller by the Authorization header's value (RFC 6750).
// With recent it may go by what the database said up to 30 seconds ago, which
// is right only where the effect itself checks the API token again.
func (a *Authenticator) Authenticate(ctx context.Context, header string, recent bool) (Caller, error) {
	scheme, text, _ := strings.Cut(header, " ")
	if header == "" {
		return Caller{}, fmt.Errorf("%w: send an API token as \"Authorization: Bearer …\"", ErrUnauthenticated)
	}
	if !strings.EqualFold(scheme, "Bearer") {
		return Caller{}, fmt.Errorf("%w: the Authorization header must be of type Bearer", ErrUnauthenticated)
	}
	hash, err := hashOf(strings.TrimSpace(text))
	if err != nil {
		return Caller{}, fmt.Errorf("%w: %w", ErrUnauthenticated, err)
	}
	var age time.Duration
	if recent {
		age = sightingAge
	}
	t, err := a.lookUp(ctx, hash, age)
	if err := a.check(t, err); err != nil {
		return Caller{}, err
	}
	return fromToken(t), nil
}

// Again checks a caller who was let in a while ago and is still here, going by
// what the database said up to the given age ago. While the database is away it
// can only tell that the API token has expired; any other error than
// ErrUnauthenticated leaves it open whether the caller may stay.
func (a *Authenticator) Again(ctx context.Context, who Caller, age time.Duration) error {
	if len(who.Token.Hash) != sha256.Size {
		return fmt.Errorf("%w: this kind of credential cannot be checked again", ErrUnauthenticated)
	}
	t, err := a.lookUp(ctx, [sha256.Size]byte(who.Token.Hash), age)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		if expired := a.check(who.Token, nil); expired != nil {
			return expired
		}
	}
	return a.check(t, err)
}

// check says what is wrong with an API token that was looked up.
func (a *Authenticator) check(t store.APIToken, err error) error {
	switch {
	case errors.Is(err, store.ErrNotFound):
		return fmt.Errorf("%w: no such API token", ErrUnauthenticated)
	case err != nil:
		return fmt.Errorf("looking up the API token: %w", err)
	case !t.RevokedAt.IsZero():
		return fmt.Errorf("%w: the API token was revoked", ErrUnauthenticated)
	case !a.Now().Before(t.ExpiresAt):
		return fmt.Errorf("%w: the API token expired at %s", ErrUnauthenticated, t.ExpiresAt.Format(time.RFC3339))
	}
	return nil
}

// lookUp returns an API token as the database has it, or had it less than age
// ago.
func (a *Authenticator) lookUp(ctx context.Context, hash [sha256.Size]byte, age time.Duration) (store.APIToken, error) {
	if age > 0 {
		a.mu.RLock()
		s, ok := a.known[hash]
		a.mu.RUnlock()
		// The clock may have been set back; that makes nothing recent.
		if old := a.Now().Sub(s.at); ok && old >= 0 && old < age {
			return s.token, nil
		}
	}
	ctx, cancel := context.WithTimeout(ctx, lookUpTimeout)
	defer cancel()
	at := a.Now()
	t, err := a.Store.APITokenByHash(ctx, hash[:])
	if err != nil {
		a.forget(hash)
		return t, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.known == nil || len(a.known) >= maxSeen {
		a.known = map[[sha256.Size]byte]sighting{}
	}
	a.known[hash] = sighting{t, at}
	return t, nil
}

func (a *Authenticator) forget(hash [sha256.Size]byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.known, hash)
}

// Forget drops what is remembered of an API token, because the database was
// seen to think otherwise.
func (a *Authenticator) Forget(id uuid.UUID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for h, s := range a.known {
		if s.token.ID == id {
			delete(a.known, h)
		}
	}
}

// Create makes an API token with the bounds of t and returns its text, which is
// not stored and cannot be had again.
func Create(ctx context.Context, s Store, t store.APIToken, validFor time.Duration, by store.Actor) (string, store.APIToken, error) {
	text, hash := newSecret()
	t.Hash = hash
	t, err := s.CreateAPIToken(ctx, t, validFor, by)
	return text, t, err
}
