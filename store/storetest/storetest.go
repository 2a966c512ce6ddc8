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

	// Cut is a query that cuts the connections of those who watch, with a row for
	// each. Empty if they have none.
	Cut string
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
		{"legacy keys", testLegacyKeys},
		{"legacy keys that may not be", testLegacyRefused},
		{"legacy keys are used on the record", testLegacyUse},
		{"legacy keys are rotated at once", testLegacyRace},
		{"tampered legacy keys are left out", testLegacyFaults},
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
		{"maintenance of one part fails", testMaintainPart},
		{"maintenance at once", testMaintainConcurrently},
		{"retention is no fault", testCheckLedgerPruned},
		{"keys are changed", testChangeKeys},
		{"changes of keys are all or nothing", testChangeKeysAtomic},
		{"key that moved before it is changed", testChangeMoved},
		{"nothing is decided on tampered rows", testChangeTampered},
		{"same step by many replicas", testStepRace},
		{"serials by many replicas", testSerialRace},
		{"policy of a keyset changes", testUpdateKeyset},
		{"rotation is asked for", testSchedule},
		{"signing key by its serial", testSigningKey},
		{"keys that have ended are destroyed", testDestroy},
		{"keys that have not ended are not destroyed", testDestroyRefused},
		{"public keys are imported", testImport},
		{"challenges", testChallenge},
		{"replicas are remembered", testReplicas},
		{"consumers acknowledge keys", testAcknowledge},
		{"acknowledgements of strangers", testAcknowledgeRefused},
		{"changes of keys are told", testChangesAreTold},
		{"heartbeat", testHeartbeat},
		{"database's clock", testClock},
		{"view sees one moment", testView},
		{"update is all or nothing", testUpdate},
		{"revocations", testRevoked},
		{"token IDs are revoked once", testRevoke},
		{"tokens that have expired are revoked while they may be accepted", testRevokeExpired},
		{"tokens that have expired are revoked by the ledger", testRevokeMatchingExpired},
		{"revocations are audited", testRevokeAudit},
		{"what cannot be revoked leaves nothing", testRevokeRefused},
		{"revocations are lifted", testLift},
		{"standings of token IDs", testStandings},
		{"revocations of expired tokens are forgotten", testForgetRevocations},
		{"many revocations are forgotten", testForgetManyRevocations},
		{"pages of a feed", testFeed},
		{"readers of a feed that begin anew", testFeedReset},
		{"feed against a model", testFeedModel},
		{"feed while it is written", testFeedRace},
		{"another copy of the data has new epochs", testNewEpoch},
		{"revocations are told", testRevocationsAreTold},
		{"filters of the ledger", testLedgerFilter},
		{"live tokens", testLiveTokens},
		{"revocations by the ledger", testRevokeMatching},
		{"revocations by the ledger, again", testRevokeMatchingAgain},
		{"revocations by the ledger of an unexpected number", testUnexpectedCount},
		{"revocations by the ledger in parts", testRevokeMatchingParts},
		{"tokens in flight are revoked", testRevokeInFlight},
		{"revocation by the ledger against issuing", testRevokeMatchingRace},
		{"pages of the audit", testAudit},
		{"watchers are told after the commit", testWatch},
		{"watchers are told of changes of the ring", testWatchChanges},
		{"watcher that is slow", testWatchSlow},
		{"watcher whose connection is cut", testWatchCut},
		{"ended context", testEndedContext},
		{"context that ends while waiting", testContextWhileWaiting},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.run(t, h)
		})
	}
}
