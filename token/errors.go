package token

import (
	"errors"
	"slices"
)

// failure is the type of the sentinels below: the text for people and the word
// for machines are declared together.
type failure struct{ reason, text string }

func (f *failure) Error() string { return f.text }

// The ways in which this package fails, for use with [errors.Is]. An error's text
// may quote a bounded piece of a header or claim, never the token.
var (
	// ErrMalformed: not a compact JWS with a header and a payload that are
	// JSON objects without duplicate names, or a header that is not allowed.
	ErrMalformed error = &failure{"malformed", "malformed token"}
	// ErrUnknownKey: no key of the keyset has the token's kid.
	ErrUnknownKey error = &failure{"unknown_key", "unknown key"}
	// ErrAlgorithm: the token names another algorithm than its key does.
	ErrAlgorithm error = &failure{"algorithm", "algorithm is not the key's"}
	// ErrSignature: the signature does not verify.
	ErrSignature error = &failure{"signature", "signature does not verify"}
	// ErrClaims: the claims are not those of the verifier's profile.
	ErrClaims error = &failure{"claims", "claims refused"}
	// ErrIssuer: the token does not come from the expected issuer.
	ErrIssuer error = &failure{"issuer", "issuer refused"}
	// ErrExpired: the time is at or after exp.
	ErrExpired error = &failure{"expired", "token has expired"}
	// ErrNotYetValid: nbf or iat is in the future.
	ErrNotYetValid error = &failure{"not_yet_valid", "token is not valid yet"}
	// ErrRequirement: the token is good, but not for what the caller needs.
	ErrRequirement error = &failure{"requirement", "token does not meet a requirement"}
	// ErrRevoked: the token's jti has been revoked.
	ErrRevoked error = &failure{"revoked", "token has been revoked"}
	// ErrRevocationsUnavailable: it is not known whether the token has been
	// revoked.
	ErrRevocationsUnavailable error = &failure{"revocations_unavailable", "revocations are not available"}
	// ErrFeedCredential: the server of a revocation feed refused the credential,
	// or there is none to send.
	ErrFeedCredential error = &failure{"feed_credential", "credential for the revocation feed is not good"}
	// ErrFeedKeyset: the server of a revocation feed knows no such keyset.
	ErrFeedKeyset error = &failure{"feed_keyset", "keyset of the revocation feed is not known"}
	// ErrFeedPage: bytes that are not a page of a revocation feed, or a page that
	// does not follow the last.
	ErrFeedPage error = &failure{"feed_page", "page of the revocation feed refused"}
	// ErrKeysUnavailable: there is no key set to look the key up in.
	ErrKeysUnavailable error = &failure{"keys_unavailable", "keys are not available"}
	// ErrStaleKeys: the key set is older than it may be.
	ErrStaleKeys error = &failure{"stale_keys", "keys are too old"}
	// ErrKeySet: bytes that are not an acceptable key or JWK set.
	ErrKeySet error = &failure{"key_set", "key set refused"}
)

// Reason returns a short word in snake_case that says why verification failed. The
// words are stable and fit for a metric's label: "ok" for nil, "other" for an
// error that is not of this package.
func Reason(err error) string {
	if err == nil {
		return "ok"
	}
	if f, ok := errors.AsType[*failure](err); ok {
		return f.reason
	}
	return "other"
}

// Reasons returns every word that [Reason] can answer.
func Reasons() []string {
	words := []string{"ok", "other"}
	for _, err := range []error{
		ErrMalformed, ErrUnknownKey, ErrAlgorithm, ErrSignature, ErrClaims, ErrIssuer, ErrExpired,
		ErrNotYetValid, ErrRequirement, ErrRevoked, ErrRevocationsUnavailable, ErrFeedCredential,
		ErrFeedKeyset, ErrFeedPage, ErrKeysUnavailable, ErrStaleKeys, ErrKeySet,
	} {
		words = append(words, Reason(err))
	}
	slices.Sort(words)
	return words
}
