// Package store keeps what zonemint must not forget: keysets and the rows of
// their signing keys, the ledger of issued tokens, revocations, API tokens,
// audit events and the leases of replicas.
//
// [DB] is what the rest of zonemint holds. It knows the rules: which state may
// follow which, that an administrative act and its audit event are one
// transaction, that every change of a key raises the ring's generation, and
// that rows which decide who can sign or call carry a MAC under the instance
// key. [Engine] is the narrow contract underneath, with one implementation per
// database; engines move rows and know no rules.
//
// The database's clock decides: times that are stored, and times that rows are
// compared with, come from [Tx.Now] or from the statement itself.
//
// Trust: whoever can write to the database, but does not have the instance key,
// can destroy and can roll rows back to what they once were, but cannot mint:
// a planted or edited key, keyset or API token fails its MAC and is left out.
package store
