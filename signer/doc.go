// Package signer defines what a signing backend promises and turns that
// promise into signing keys the rest of zonemint can hold.
//
// Two types matter. [Backend] is the driver contract: one implementation per
// place where private keys live (a database row, an HSM, a cloud KMS). [Key] is
// what everybody else holds: it is a standard [crypto.Signer], it has forms
// that take a context, and it does once, for every backend, what drivers would
// otherwise each do a little differently: it checks the digest, classifies the
// error, re-encodes ECDSA signatures for JWS and verifies signatures that were
// made outside this process.
//
// The package knows nothing of databases, of tokens or of any vendor.
package signer
