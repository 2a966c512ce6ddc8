package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/google/uuid"
)

// Profile says which claims the tokens of a keyset carry.
type Profile string

// The profiles.
const (
	ProfileZone      Profile = "zone"
	ProfileDataplane Profile = "dataplane"
	ProfileUser      Profile = "user"
)

// Distribution says how the verifiers of a keyset learn its keys.
type Distribution string

// The ways of distribution.
const (
	DistributionJWKS     Distribution = "jwks"
	DistributionKumaSync Distribution = "kuma-sync"
	DistributionManual   Distribution = "manual"
)

// Keyset is a named series of signing keys: one purpose, one profile, one
// algorithm, one policy.
type Keyset struct {
	ID           uuid.UUID
	Name         string
	Profile      Profile
	Algorithm    string // of new keys, in the text form of signer.Algorithm
	Backend      string // of new keys
	Distribution Distribution
	Policy       Policy
	CreatedAt    time.Time
	UpdatedAt    time.Time

	// PolicyText is Policy as it is stored. Engines read and write it; the MAC
	// covers its very bytes.
	PolicyText string
	Version    int64
	MAC        []byte
}

// Policy is what a keyset allows. It is stored as JSON, so that a later version
// can add to it.
type Policy struct {
	// MaxValidFor is the longest lifetime of a token.
	MaxValidFor Duration `json:"max_valid_for"`
	// DefaultValidFor is the lifetime of a token whose request says none. Zero:
	// requests must say one.
	DefaultValidFor Duration `json:"default_valid_for,omitzero"`
	// Backdate is by how much iat and nbf lie in the past.
	Backdate Duration `json:"backdate"`
	// RotateEvery is how long a key signs before its successor takes over. Zero:
	// until somebody asks for it.
	RotateEvery Duration `json:"rotate_every,omitzero"`
	// PublishAhead is how long a successor is published at least before it takes
	// over by itself. What caches need is waited for in any case.
	PublishAhead Duration `json:"publish_ahead,omitzero"`
	// Consumers are those who have to acknowledge a key before it signs.
	Consumers []string `json:"consumers,omitempty"`
	// Mesh is the mesh of a keyset for dataplane tokens, where the keyset's name
	// does not say it. It does not change.
	Mesh string `json:"mesh,omitempty"`
	// AllowMeshSystem allows user tokens with the rights that control planes give
	// to names and groups of their own.
	AllowMeshSystem bool `json:"allow_mesh_system,omitempty"`
	// Standby is the backend of the keys that sign while the keyset's backend
	// cannot; empty if there are none.
	Standby string `json:"standby,omitempty"`
	// AllowWeakerStandby allows a standby whose private keys are kept less safely
	// than those of the keyset's backend.
	AllowWeakerStandby bool `json:"allow_weaker_standby,omitempty"`
}

// BackendFor returns the backend of new keys in that role; empty if the keyset is to
// have none.
func (k Keyset) BackendFor(role Role) string {
	if role == RoleStandby {
		return k.Policy.Standby
	}
	return k.Backend
}

// Mesh returns the mesh that the keyset's tokens are for: what follows the slash in
// its name, unless the policy says otherwise. It is empty if the keyset is not for
// dataplane tokens, or says nothing of a mesh.
func (k Keyset) Mesh() string {
	if k.Profile != ProfileDataplane {
		return ""
	}
	if k.Policy.Mesh != "" {
		return k.Policy.Mesh
	}
	_, mesh, _ := strings.Cut(k.Name, "/")
	return mesh
}

func (p Policy) encode() (string, error) {
	b, err := json.Marshal(p)
	return string(b), err
}

func decodePolicy(text string) (Policy, error) {
	var p Policy
	dec := json.NewDecoder(bytes.NewReader([]byte(text)))
	// A field that this version does not know may forbid something: refuse to
	// work with the keyset rather than ignore it.
	dec.DisallowUnknownFields()
	if err := dec.Decode(&p); err != nil {
		return Policy{}, fmt.Errorf("policy: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return Policy{}, errors.New("policy: trailing data")
	}
	return p, nil
}

// Duration is a time.Duration that is written as text, "720h0m0s".
type Duration time.Duration

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	*d = Duration(v)
	return err
}
