// Package pkcs11 is the signing backend for private keys that live in a
// hardware security module, reached through its PKCS#11 library.
//
// PKCS#11 keeps its state in the process and not in a connection: one library
// is initialised once, and after the HSM has gone away it works again only when
// everybody in the process has let go of it. So each library has one owner
// here, which all backends on it share through [Modules]. The owner notices
// that the HSM has gone away, fails all calls at once until it is back, and
// connects again by itself.
//
// A call into the library cannot be interrupted. Callers do not wait for one
// longer than their context allows; the call itself goes on, keeps its
// session, and is counted. So there are never more of them than sessions.
//
// The package needs cgo. Built without it, [Modules.Open] says so.
package pkcs11
