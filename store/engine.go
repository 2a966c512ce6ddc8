package store

import (
	"context"
	"time"

	"github.com/google/uuid"
)

// Engine is what a database has to offer. Implementations are safe for
// concurrent use, honour contexts, and wrap driver errors with the sentinels of
// this package. They do not retry.
type Engine interface {
	// Update runs fn in a transaction and commits it if fn returns nil. An
	// error of the commit itself whose outcome is not known is
	// ErrUnknownOutcome.
	Update(ctx context.Context, fn func(Tx) error) error

	// View runs fn in a read-only transaction that sees one moment.
	View(ctx context.Context, fn func(Tx) error) error

	// AppendLedger records a batch durably, all of it or nothing. It is
	// recorded only if every key in batch.Keys may sign and every API token in
	// batch.Callers may call, at the moment of the commit; otherwise the
	// answer names those that may not. It raises last_expiry of the keys at
	// least to what batch.Keys says, before or with the rows.
	AppendLedger(ctx context.Context, batch LedgerBatch) (Refused, error)

	// Heartbeat renews a replica's lease and returns the database's clock, read
	// within the call, and the ring's generation.
	Heartbeat(ctx context.Context, r Replica, ttl time.Duration) (Beat, error)

	// Leave ends a replica's lease.
	Leave(ctx context.Context, replica uuid.UUID) error

	// Maintain makes room for coming ledger rows and forgets those whose tokens
	// expired longer than retention ago, and nothing younger. It is safe to run
	// on several replicas at once.
	Maintain(ctx context.Context, retention time.Duration) (Maintained, error)

	// Linger is how long a group commit may wait for company under load, zero
	// where waiting does not pay.
	Linger() time.Duration

	// Close ends all connections.
	Close() error
}

// Tx is a transaction. It is used by one goroutine.
type Tx interface {
	// Now returns the database's clock, in UTC, to the microsecond.
	Now(ctx context.Context) (time.Time, error)

	Installation(ctx context.Context) (Installation, error) // ErrNotFound before the first start
	InsertInstallation(ctx context.Context, in Installation) error
	BumpGeneration(ctx context.Context) (int64, error)

	InsertKeyset(ctx context.Context, ks Keyset) error // ErrExists
	Keysets(ctx context.Context) ([]Keyset, error)

	InsertSigningKey(ctx context.Context, k SigningKey) error
	LiveSigningKeys(ctx context.Context) ([]SigningKey, error)
	SigningKeys(ctx context.Context, keyset uuid.UUID) ([]SigningKey, error)
	// LockSigningKey keeps others from changing the key and batches of its
	// keyset from being recorded, until the transaction ends. It waits for
	// batches that are under way, but not for those that come after it.
	LockSigningKey(ctx context.Context, id uuid.UUID) (SigningKey, error)
	// ClaimSigningKey takes the lease on a key in state creating and returns
	// its fence; ErrConflict if another replica holds it, which has to be alive
	// to do so.
	ClaimSigningKey(ctx context.Context, id, owner uuid.UUID, ttl time.Duration) (int64, error)
	// UpdateSigningKey writes k, whose Version and MAC are those of the new
	// row, over the row in state was with the version before. With a fence
	// other than 0 the writer must hold it. ErrConflict if the row has moved.
	UpdateSigningKey(ctx context.Context, k SigningKey, was State, fence int64) error

	InsertAPIToken(ctx context.Context, t APIToken) error
	// MayCall says whether an API token is neither revoked nor expired, and
	// keeps it so until the transaction ends.
	MayCall(ctx context.Context, id uuid.UUID) (bool, error)
	APITokenByHash(ctx context.Context, hash []byte) (APIToken, error)
	// LockAPIToken does the same for an API token and batches with it.
	LockAPIToken(ctx context.Context, id uuid.UUID) (APIToken, error)
	APITokens(ctx context.Context, before uuid.UUID, limit int) ([]APIToken, error)
	// RevokeAPIToken writes RevokedAt and MAC over the version before t.Version.
	RevokeAPIToken(ctx context.Context, t APIToken) error

	InsertAuditEvent(ctx context.Context, e AuditEvent) error
	AuditEvents(ctx context.Context) ([]AuditEvent, error)

	Revoked(ctx context.Context, keyset uuid.UUID, jti string) (bool, error)

	Issuance(ctx context.Context, jti uuid.UUID) (Issuance, error)
	LedgerWriters(ctx context.Context) ([]uuid.UUID, error)
	LedgerBatches(ctx context.Context, writer uuid.UUID, after int64, limit int) ([]LedgerBatch, error)
	BatchRows(ctx context.Context, b LedgerBatch) ([]Issuance, error)
}

// Installation identifies a database.
type Installation struct {
	ID         uuid.UUID
	Generation int64
	KeyCheck   []byte
}

// Replica is a running process that serves from this database.
type Replica struct {
	ID          uuid.UUID
	Name        string
	Version     string
	Generation  int64         // of the ring it has loaded
	ClockOffset time.Duration // the database's clock minus its own
}

// Beat is the answer to a heartbeat.
type Beat struct {
	Now        time.Time
	Generation int64
}

// Maintained says what a run of maintenance did.
type Maintained struct {
	RowsForgotten       int64
	PartitionsForgotten []string
	PartitionsMade      []string
}
