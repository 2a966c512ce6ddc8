package store

import (
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
)

// State is where a signing key is in its life.
type State string

// The states of a signing key.
//
//	creating ──> published ──> active ──> retiring ──> removed
//	   │             │            │          │
//	   └> failed     └> abandoned └──────────┴──> distrusted
const (
	StateCreating   State = "creating"
	StateFailed     State = "failed"
	StatePublished  State = "published"
	StateAbandoned  State = "abandoned"
	StateActive     State = "active"
	StateRetiring   State = "retiring"
	StateRemoved    State = "removed"
	StateDistrusted State = "distrusted"
)

// next lists the states that may follow each state.
func (s State) next() []State {
	switch s {
	case StateCreating:
		return []State{StatePublished, StateFailed}
	case StatePublished:
		return []State{StateActive, StateAbandoned, StateDistrusted}
	case StateActive:
		return []State{StateRetiring, StateDistrusted}
	case StateRetiring:
		return []State{StateActive, StateRemoved, StateDistrusted}
	default:
		return nil
	}
}

// Verifies says whether a key in this state is in the JWK set.
func (s State) Verifies() bool {
	return s == StatePublished || s == StateActive || s == StateRetiring
}

// live says whether the key has not ended.
func (s State) live() bool { return s == StateCreating || s.Verifies() }

// Role tells the key that signs from the one that is ready to when the first
// key's backend cannot.
type Role string

// The roles.
const (
	RolePrimary Role = "primary"
	RoleStandby Role = "standby"
)

// SigningKey is one serial of a keyset. The private key is in its backend.
type SigningKey struct {
	ID         uuid.UUID
	KeysetID   uuid.UUID
	Serial     int
	Role       Role
	State      State
	Algorithm  string
	Backend    string
	Label      string // random; how the backend finds the key again
	Ref        []byte // the backend's reference
	KID        string
	Thumbprint string // RFC 7638, SHA-256, lower-case hexadecimal
	PublicKey  []byte // PKIX, ASN.1 DER
	Imported   bool
	// Adopted is what the key is called in its backend if zonemint did not make it
	// but took it over; empty otherwise.
	Adopted string
	Reason  string // why it came to its state

	CreatedAt     time.Time
	PublishedAt   time.Time
	ActivateAfter time.Time
	ActivatedAt   time.Time
	RetiredAt     time.Time
	RemovedAt     time.Time
	DestroyedAt   time.Time
	// DestroyAskedAt is when somebody first wanted the private key destroyed.
	DestroyAskedAt time.Time
	TrustedUntil   time.Time // imported keys only

	Attestation []byte
	Version     int64
	MAC         []byte

	// LastExpiry is an upper bound for the expiry of every token that the key
	// has signed. Not covered by the MAC, since every batch may raise it.
	LastExpiry time.Time
	// MakingUntil is when the lease of the last replica ends, or ended, that was
	// making the key. Not covered by the MAC.
	MakingUntil time.Time
}

// moveTo changes the state, if the state machine allows it.
func (k *SigningKey) moveTo(to State, now time.Time) error {
	if !slices.Contains(k.State.next(), to) || to == StateActive && k.Imported {
		return fmt.Errorf("key %d is %s and cannot become %s: %w", k.Serial, k.State, to, ErrConflict)
	}
	k.State = to
	switch to {
	case StatePublished:
		k.PublishedAt = now
	case StateActive:
		k.ActivatedAt = now
	case StateRetiring:
		k.RetiredAt = now
	case StateRemoved, StateDistrusted, StateAbandoned:
		k.RemovedAt = now
	case StateFailed: // which has no time of its own
		k.Thumbprint = "" // another row may adopt the key
	case StateCreating: // CreatedAt is of the row
	}
	return nil
}

// NewKey is a serial to be made, or imported.
type NewKey struct {
	Role  Role
	Label string
	// Reason is for the audit.
	Reason string
	// ActivateAfter, if it is not zero, asks for the key to take over from then
	// on.
	ActivateAfter time.Time
	// Adopt, if it is not empty, is what a key is called that its backend has
	// already, and that is taken over instead of being made. Thumbprint is then the
	// one of its public half, by which nothing else is taken over under that name, and
	// no other row has the key.
	Adopt, Thumbprint string
	// Import, if it is not nil, is a public key that only verifies. It begins in
	// state retiring, and no backend has it.
	Import *ImportedKey
}

// ImportedKey is the key of another issuer.
type ImportedKey struct {
	KID          string
	Algorithm    string
	Thumbprint   string // as in SigningKey
	PublicKey    []byte // PKIX, ASN.1 DER
	TrustedUntil time.Time
}

// Made is what is known of a key once its backend has made it.
type Made struct {
	Ref         []byte
	KID         string
	Thumbprint  string
	PublicKey   []byte
	Attestation []byte // what the backend proves of where it lives
}
