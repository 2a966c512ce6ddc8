// Package token verifies the tokens that zonemint issues. It is made for other
// people's control planes: it imports nothing else of zonemint, and little
// besides the standard library. It also holds the claim types and encoders that
// zonemint itself builds tokens with, so that both ends share one definition.
//
// # Trust
//
// A zonemint token is a JWT (RFC 7519) in the compact form of JWS (RFC 7515). It
// says nothing about what kind of token it is, so whoever trusts one key for two
// kinds of token has made the two interchangeable. Therefore a [Verifier] is made
// for exactly one profile, by its type parameter, and for the public keys of
// exactly one keyset, by its [KeySource]. There is no verifier for "any".
//
// The key decides how a signature is checked. A [Key] names its algorithm, the
// header of a token may only repeat it, and nothing else in the header is ever
// used to find or build a key: tokens that carry jwk, jku, x5u or x5c are refused.
// Whoever can change what the KeySource returns can sign; [RemoteKeys] relies on
// TLS for that.
//
// # What a verified token means
//
// The signature is by a key of the keyset. The claims are those of the profile,
// each present once, in the exact spelling, with the right type, and none belongs
// to another profile; exp, jti and a subject are there; the scopes are known ones.
// The token is within its validity period (see [Options.Leeway]), it comes from
// the expected issuer if one was configured, every [Requirement] holds, and the
// [Revocations] say that it was not revoked.
//
// Everything fails closed. Keys older than [RemoteOptions.MaxStale] verify nothing,
// and revocations that cannot be asked refuse everything unless
// [Options.RevocationsFailOpen] is set. [Reason] turns any failure into a short
// stable word.
//
// # Following a keyset
//
// [RemoteKeys] and [RemoteRevocations] each keep up with what zonemint serves about
// one keyset: its public keys, and which of its tokens have been revoked. Both do all
// their work in a Run method that the caller starts and ends, and both have a
// Status that says how old their knowledge is. A revocation takes effect within a
// second or so while the feed is streamed, within
// [RevocationOptions.PollInterval] while it is polled, and, unless the verifier fails
// open, never later than [RevocationOptions.MaxStale] allows, whoever delays the
// connection.
//
// Verification does not prove who presents a token: it is a bearer token. The text
// of a token does not identify it either, because ECDSA signatures can be rewritten
// into a second valid form; its jti does.
package token
