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
	// recorded only if every key in batch.Keys may sign, and has no barrier after
	// MinIssued, and every API token in batch.Callers may call, at the moment of
	// the commit; otherwise the
	// answer names those that may not. It raises last_expiry of the keys at
	// least to what batch.Keys says, before or with the rows.
	AppendLedger(ctx context.Context, batch LedgerBatch) (Refused, error)

	// Heartbeat renews a replica's lease for ttl, or ends it with 0, and returns the database's clock, read
	// within the call, and the ring's generation.
	Heartbeat(ctx context.Context, r Replica, ttl time.Duration) (Beat, error)

	// Leave ends a replica's lease.
	Leave(ctx context.Context, replica uuid.UUID) error

	// Maintain makes room for coming ledger rows and forgets those whose tokens
	// expired longer than retention ago, and nothing younger, and revocations
	// whose tokens expired longer than RevocationGrace ago. It is safe to run on
	// several replicas at once.
	Maintain(ctx context.Context, retention time.Duration) (Maintained, error)

	// Watch runs until ctx ends and calls wake with every topic that a committed
	// transaction notified of, and with each topic whenever it has connected,
	// since something may have been missed before. It reconnects by itself, and
	// notices within seconds when a connection has died without a word. Wake is
	// called by one goroutine at a time; it must return quickly.
	Watch(ctx context.Context, wake func(Topic)) error

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
	// LeapGeneration raises the generation past all that replicas may have loaded
	// from another copy of the data.
	LeapGeneration(ctx context.Context) error
	// Incarnation says which copy of the data this is, as far as the database can
	// tell: a restored one and a promoted standby say something else.
	Incarnation(ctx context.Context) (string, error)
	// SetIncarnation writes what the installation's row says of it; ErrConflict
	// if the row does not say was.
	SetIncarnation(ctx context.Context, was, is string) error
	// Notify tells those who watch the topic once the transaction has committed,
	// and not if it is rolled back. It is for transactions of Update.
	Notify(ctx context.Context, topic Topic) error

	InsertKeyset(ctx context.Context, ks Keyset) error // ErrExists
	Keysets(ctx context.Context) ([]Keyset, error)
	// LockKeyset keeps others who lock it from going on until the transaction
	// ends. It does not hold up batches.
	LockKeyset(ctx context.Context, id uuid.UUID) (Keyset, error)
	// UpdateKeyset writes ks over the version before ks.Version; ErrConflict if
	// the row has another one. Name and profile do not change.
	UpdateKeyset(ctx context.Context, ks Keyset) error

	InsertSigningKey(ctx context.Context, k SigningKey) error
	LiveSigningKeys(ctx context.Context) ([]SigningKey, error)
	SigningKeys(ctx context.Context, keyset uuid.UUID) ([]SigningKey, error)
	// LiveKeysOf returns what LiveSigningKeys does, of one keyset.
	LiveKeysOf(ctx context.Context, keyset uuid.UUID) ([]SigningKey, error)
	SigningKey(ctx context.Context, keyset uuid.UUID, serial int) (SigningKey, error)
	// SeriesOf says how far a keyset has come, AllSeries the same of those that
	// have keys.
	SeriesOf(ctx context.Context, keyset uuid.UUID) (Series, error)
	AllSeries(ctx context.Context) (map[uuid.UUID]Series, error)
	// LockSigningKey keeps others from changing the key and batches of its
	// keyset from being recorded, until the transaction ends. It waits for
	// batches that are under way, but not for those that come after it.
	LockSigningKey(ctx context.Context, id uuid.UUID) (SigningKey, error)
	// ClaimSigningKey takes the lease on a key in state creating and returns
	// its fence; ErrConflict if another replica holds it, which has to be alive
	// to do so.
	ClaimSigningKey(ctx context.Context, id, owner uuid.UUID, ttl time.Duration) (int64, error)
	// ReleaseSigningKey gives back a lease that was taken with that fence. It does
	// nothing if somebody else has taken it since.
	ReleaseSigningKey(ctx context.Context, id uuid.UUID, fence int64) error
	// UpdateSigningKey writes k, whose Version and MAC are those of the new
	// row, over the row in state was with the version before. With a fence
	// other than 0 the writer must hold it. ErrConflict if the row has moved.
	UpdateSigningKey(ctx context.Context, k SigningKey, was State, fence int64) error

	// Replicas returns those that live and those that ended within a day.
	Replicas(ctx context.Context) ([]ReplicaLease, error)
	PutAcknowledgement(ctx context.Context, a Acknowledgement) error
	Acknowledgements(ctx context.Context) ([]Acknowledgement, error)

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

	InsertLegacyKey(ctx context.Context, k LegacyKey) error // ErrExists
	LegacyKeys(ctx context.Context, kind LegacyKind) ([]LegacyKey, error)
	// LockLegacyKeys does the same and keeps others who lock the kind, even while
	// it has no keys, from going on until the transaction ends. Who has waited
	// longest goes first.
	LockLegacyKeys(ctx context.Context, kind LegacyKind) ([]LegacyKey, error)
	// UpdateLegacyKey writes state, secret and times of k over the row in state was
	// with the version before k.Version; ErrConflict if the row has moved.
	UpdateLegacyKey(ctx context.Context, k LegacyKey, was LegacyState) error

	InsertAuditEvent(ctx context.Context, e AuditEvent) error
	AuditEvents(ctx context.Context, f AuditFilter, before uuid.UUID, limit int) ([]AuditEvent, error)

	Revoked(ctx context.Context, keyset uuid.UUID, jti string) (bool, error)
	Revocation(ctx context.Context, keyset uuid.UUID, jti string) (Revocation, error)
	RevocationsOf(ctx context.Context, keyset uuid.UUID, jtis []string) ([]Revocation, error)
	// RevocationsAfter returns those whose tokens expired no longer than
	// RevocationGrace ago, by Seq, the lifted ones only if lifted is set.
	RevocationsAfter(ctx context.Context, keyset uuid.UUID, seq int64, lifted bool, limit int) ([]Revocation, error)
	// PutRevocations writes rows of a keyset, none of them lifted, over those of
	// the same JTI.
	PutRevocations(ctx context.Context, keyset uuid.UUID, rows []Revocation) error
	// LiftRevocation writes Seq and LiftedAt.
	LiftRevocation(ctx context.Context, r Revocation) error

	Feed(ctx context.Context, keyset uuid.UUID) (Feed, error)
	Feeds(ctx context.Context) ([]Feed, error)
	// LockFeed keeps others from changing the feed, and the revocations in it,
	// until the transaction ends.
	LockFeed(ctx context.Context, keyset uuid.UUID) (Feed, error)
	AdvanceFeed(ctx context.Context, keyset uuid.UUID, seq int64) error
	// RenewFeeds begins a new epoch of every feed.
	RenewFeeds(ctx context.Context) error

	// RaiseIssueBarrier keeps batches of a keyset, or with uuid.Nil of any, from
	// being recorded until the transaction ends, waits for those under way, and
	// has rows refused from then on that were issued before the barrier it
	// returns: the present moment, or latest if that is earlier and not zero.
	RaiseIssueBarrier(ctx context.Context, keyset uuid.UUID, latest time.Time) (time.Time, error)
	CountIssuances(ctx context.Context, f LedgerFilter) (int64, error)
	// JTIAt returns the jti of the row that matches and has that many before it,
	// by jti; uuid.Max if there is none.
	JTIAt(ctx context.Context, f LedgerFilter, offset int) (uuid.UUID, error)
	// RevokeIssuances locks the feeds concerned and puts a revocation into them
	// for each row that matches, unless there is one that holds as long. It
	// returns how many it put. RevokedAt, Reason and Caller are those of like.
	RevokeIssuances(ctx context.Context, f LedgerFilter, like Revocation) (int64, error)

	Issuance(ctx context.Context, jti uuid.UUID) (Issuance, error)
	Issuances(ctx context.Context, f LedgerFilter, before uuid.UUID, limit int) ([]Issuance, error)
	LiveTokens(ctx context.Context, keyset uuid.UUID) (map[int]int64, error)
	LedgerWriters(ctx context.Context) ([]uuid.UUID, error)
	LedgerBatches(ctx context.Context, writer uuid.UUID, after int64, limit int) ([]LedgerBatch, error)
	BatchRows(ctx context.Context, b LedgerBatch) ([]Issuance, error)
}

// Installation identifies a database.
type Installation struct {
	ID         uuid.UUID
	Generation int64
	KeyCheck   []byte
	// Incarnation is the copy of the data that the feeds' epochs belong to.
	// Empty: nobody has looked yet.
	Incarnation string
}

// Replica is a running process that serves from this database.
type Replica struct {
	ID          uuid.UUID
	Name        string
	Version     string
	Generation  int64         // of the ring it has loaded
	ClockOffset time.Duration // the database's clock minus its own
	// CacheFor is how long verifiers may go on using a JWK set after this
	// replica has served it.
	CacheFor time.Duration
	// LeaseTTL is how long its leases last.
	LeaseTTL time.Duration
}

// ReplicaLease is a replica as the database remembers it.
type ReplicaLease struct {
	Replica
	StartedAt  time.Time
	LeaseUntil time.Time
	AckedAt    time.Time // when it first said that it has loaded Generation
}

// Acknowledgement is what a consumer of a keyset says it has.
type Acknowledgement struct {
	KeysetID   uuid.UUID
	Consumer   string
	KIDs       []string
	Generation int64 // of the ring when it said so
	Caller     string
	AckedAt    time.Time
}

// Series is how far a keyset has come.
type Series struct {
	LastSerial int
	// SignedSince is when the first of its keys began to sign, or earlier; zero if
	// none ever has.
	SignedSince time.Time
}

// HasSigned says whether some key has been active, perhaps long ago.
func (s Series) HasSigned() bool { return !s.SignedSince.IsZero() }

// With returns the series after one of its keys has come to another state.
func (s Series) With(k SigningKey) Series {
	since := k.ActivatedAt
	// Once it has retired it may have signed before, too: ActivatedAt is of the last time.
	if !k.RetiredAt.IsZero() && k.PublishedAt.Before(since) {
		since = k.PublishedAt
	}
	if !k.ActivatedAt.IsZero() && (!s.HasSigned() || since.Before(s.SignedSince)) {
		s.SignedSince = since
	}
	return s
}

// Beat is the answer to a heartbeat.
type Beat struct {
	Now        time.Time
	Generation int64
}

// Maintained says what a run of maintenance did.
type Maintained struct {
	RowsForgotten        int64
	RevocationsForgotten int64
	PartitionsForgotten  []string
	PartitionsMade       []string
}
