// Package storetest is the suite that every engine of the store passes. It
// holds engines to what [store.Engine] and [store.Tx] promise and, through
// [store.DB], the whole to what its methods promise.
package storetest

import (
	"database/sql"
	"testing"

	"github.com/zonemint/zonemint/store"
)

// Harness is an engine under test.
type Harness struct {
	// Open returns a fresh, migrated database that is the test's own and gone
	// after it.
	Open func(t testing.TB) Database
}

// Database is a database under test.
type Database struct {
	Engine store.Engine

	// Second returns another engine on the same database, as a second replica
	// has it. Nil if the database serves one process only.
	Second func(t testing.TB) store.Engine

	// SQL is access to the database behind the engine's back. It does not
	// enforce foreign keys.
	SQL *sql.DB

	// Columns is a query for the names and the types of the columns of a table,
	// which is its parameter $1.
	Columns string

	// Edits has an expression for every type of column: a value that the column,
	// written {column}, does not have.
	Edits map[string]string

	// Drag has statements after which it takes some milliseconds to commit a
	// batch of the ledger, as with a slow disk or a synchronous standby. Empty if
	// batches take turns, however long each takes.
	Drag []string
}

// Run runs the suite.
func Run(t *testing.T, h Harness) {
	t.Parallel()
	for _, test := range []struct {
		name string
		run  func(*testing.T, Harness)
	}{
		{"installation is bound to its instance key", testInstallation},
		{"first starts at once", testFirstStarts},
		{"keyset is created with its keys", testCreateKeyset},
		{"keyset that cannot be created leaves nothing", testCreateKeysetAtomic},
		{"life of a signing key", testLife},
		{"lease and fence", testLease},
		{"illegal transitions", testTransitions},
		{"guards of a key's update", testUpdateGuards},
		{"one active key for each role", testOneActive},
		{"public keys are unique", testUniqueKeys},
		{"activations at once", testRacingActivations},
		{"tampered rows are left out", testTampering},
		{"planted rows are left out", testPlanting},
		{"API token", testAPIToken},
		{"API token is revoked once", testRevokeAPIToken},
		{"an act is refused whose API token was revoked meanwhile", testActOfRevoked},
		{"pages of API tokens", testAPITokenPages},
		{"ledger rows are kept", testRecord},
		{"large batch", testLargeBatch},
		{"ledger refuses keys that may not sign", testRefusedKeys},
		{"ledger refuses callers that may not call", testRefusedCallers},
		{"ledger rejects bad rows", testBadRows},
		{"last expiry covers the ledger", testLastExpiry},
		{"activation against issuing", testActivationRace},
		{"retirement against issuing", testRetirementRace},
		{"revocation of a caller against issuing", testRevocationRace},
		{"ledger check passes", testCheckLedger},
		{"ledger check finds what was changed", testCheckLedgerFinds},
		{"ledger check finds what is missing", testCheckLedgerMissing},
		{"maintenance forgets what is over", testMaintain},
		{"maintenance at once", testMaintainConcurrently},
		{"retention is no fault", testCheckLedgerPruned},
		{"heartbeat", testHeartbeat},
		{"database's clock", testClock},
		{"view sees one moment", testView},
		{"update is all or nothing", testUpdate},
		{"revocations", testRevoked},
		{"ended context", testEndedContext},
		{"context that ends while waiting", testContextWhileWaiting},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.run(t, h)
		})
	}
}
