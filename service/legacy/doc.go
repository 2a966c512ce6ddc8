// Package legacy makes and verifies the old HS256 tokens of Kuma and Kong Mesh, and
// keeps their keys.
//
// Whoever can verify such a token can make one, for any zone; it has no expiry and
// no ID, so it cannot be revoked but with its key. For that reason the package is
// apart from everything asymmetric: it knows neither signers nor keysets nor their
// tokens, its keys have a type of their own that nothing else has, and it accepts
// the very bytes that it makes itself and no others.
package legacy
