package token

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Revocations says which tokens of the verifier's keyset have been revoked.
// [RemoteRevocations] follows zonemint's own feed.
type Revocations interface {
	// Revoked says whether the token with that jti has been revoked. If it
	// cannot know, for example because it has not yet learnt of any revocation
	// or of none for too long, it returns an error rather than false. It may
	// be called concurrently.
	Revoked(ctx context.Context, jti string) (bool, error)
}

// Requirement is something that a caller of [Verifier.Verify] needs of a token
// beyond its being good. Its error says what is missing; it is returned under
// [ErrRequirement].
type Requirement[C Claims] func(claims C) error

// Options configure a [Verifier]. The zero value accepts tokens of any issuer,
// allows no leeway and does not ask for revocations.
type Options struct {
	// Issuer, if set, is the iss that every token must have.
	Issuer string

	// Leeway is by how much the clocks of issuer and verifier may differ when
	// exp, nbf and iat are compared. At most MaxLeeway.
	Leeway time.Duration

	// Revocations is asked about every token that is otherwise good. If it
	// is nil, revoked tokens are accepted until they expire.
	Revocations Revocations

	// RevocationsFailOpen accepts tokens while Revocations returns errors.
	// Without it they are refused. It lets nothing pass that is known to be
	// revoked: [RemoteRevocations] goes on saying so when it is out of date.
	RevocationsFailOpen bool

	// Now is the clock, time.Now if it is nil.
	Now func() time.Time
}

// MaxLeeway is the greatest [Options.Leeway].
const MaxLeeway = 5 * time.Minute

// Verifier verifies the tokens of one profile, C, against the keys of one keyset.
// It is safe for concurrent use.
type Verifier[C Claims] struct {
	keys       KeySource
	options    Options
	vocabulary vocabulary
}

// NewVerifier returns a verifier of tokens with claims C that are signed by a key
// of keys. All of these keys must belong to one keyset, whose profile is that of C.
func NewVerifier[C Claims](keys KeySource, o Options) (*Verifier[C], error) {
	if keys == nil {
		return nil, errors.New("verifier: no source of keys")
	}
	if o.Leeway < 0 || o.Leeway > MaxLeeway {
		return nil, fmt.Errorf("verifier: leeway %s is not between 0 and %s", o.Leeway, MaxLeeway)
	}
	if o.RevocationsFailOpen && o.Revocations == nil {
		return nil, errors.New("verifier: there are no revocations to fail open")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	var c C
	return &Verifier[C]{keys: keys, options: o, vocabulary: newVocabulary(c.Profile())}, nil
}

// Verified is a token that was found good.
type Verified[C Claims] struct {
	Claims C
	Header Header
}

// Verify returns the claims of a token if it is good and meets all requirements.
// The package's documentation says what that means. Errors match one of the
// package's Err values; see also [Reason].
func (v *Verifier[C]) Verify(ctx context.Context, raw string, requirements ...Requirement[C]) (Verified[C], error) {
	t, err := parseCompact(raw)
	if err != nil {
		return Verified[C]{}, err
	}
	if err := v.verifySignature(ctx, t); err != nil {
		return Verified[C]{}, err
	}
	var claims C
	reader := any(&claims).(claimReader) // holds for every type in Claims
	if err := readClaims(t.payload, v.vocabulary, reader); err != nil {
		return Verified[C]{}, err
	}
	if err := v.checkRegistered(reader.registered()); err != nil {
		return Verified[C]{}, err
	}
	for _, require := range requirements {
		if err := require(claims); err != nil {
			return Verified[C]{}, fmt.Errorf("%w: %w", ErrRequirement, err)
		}
	}
	if err := v.checkRevoked(ctx, reader.registered().ID); err != nil {
		return Verified[C]{}, err
	}
	return Verified[C]{Claims: claims, Header: t.header}, nil
}

// verifySignature finds the key and checks the signature (RFC 7515 section 5.2).
// The algorithm is the key's; the header must agree (RFC 8725 section 3.1).
func (v *Verifier[C]) verifySignature(ctx context.Context, t compact) error {
	key, err := v.keys.Key(ctx, t.header.KeyID)
	if err != nil {
		if Reason(err) == "other" {
			err = fmt.Errorf("%w: %w", ErrKeysUnavailable, err)
		}
		return err
	}
	if t.header.Algorithm != key.Algorithm() {
		return fmt.Errorf("%w: token says %.20q", ErrAlgorithm, t.header.Algorithm)
	}
	return key.verify(t.signingInput, t.signature)
}

func (v *Verifier[C]) checkRegistered(r *Registered) error {
	if want := v.options.Issuer; want != "" && r.Issuer != want {
		return fmt.Errorf("%w: it is %.64q, not %.64q", ErrIssuer, r.Issuer, want)
	}
	return r.checkTimes(v.options.Now(), v.options.Leeway)
}

// checkRevoked is the last check, because it may cost a call.
func (v *Verifier[C]) checkRevoked(ctx context.Context, jti string) error {
	if v.options.Revocations == nil {
		return nil
	}
	revoked, err := v.options.Revocations.Revoked(ctx, jti)
	switch {
	case revoked:
		return ErrRevoked
	case err == nil || v.options.RevocationsFailOpen:
		return nil
	case Reason(err) == Reason(ErrRevocationsUnavailable):
		return err
	default:
		return fmt.Errorf("%w: %w", ErrRevocationsUnavailable, err)
	}
}
