// Package service is zonemint as seen from outside: the Connect handlers, the
// JWK sets, Kuma's token endpoints, and behind them the path on which a token is
// signed and recorded, the creation of keys, and the lease of a replica.
//
// Folders below it hold what stands on its own: service/caller says who may do
// what, service/keyring holds the keys in use, service/ledger records tokens.
package service
