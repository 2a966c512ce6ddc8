-- name: IsRevoked :one
SELECT EXISTS (
    SELECT 1 FROM revocations WHERE keyset_id = @keyset_id AND jti = @jti AND lifted_at IS NULL
) AS revoked;

-- name: GetRevocation :one
SELECT * FROM revocations WHERE keyset_id = @keyset_id AND jti = @jti;

-- name: ListRevocationsByJti :many
SELECT r.* FROM json_each(@jtis) j
CROSS JOIN revocations r ON r.keyset_id = @keyset_id AND r.jti = j.value;

-- name: ListRevocationsAfter :many
SELECT * FROM revocations
WHERE keyset_id = @keyset_id AND seq > @after_seq AND expires_at > @expired_by
  AND (lifted_at IS NULL OR CAST(sqlc.arg(lifted) AS boolean))
ORDER BY seq LIMIT @max_rows;

-- name: PutRevocations :exec
-- From a JSON array of arrays, like the ledger's rows.
INSERT INTO revocations (keyset_id, jti, seq, expires_at, revoked_at, reason, caller)
SELECT @keyset_id, value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5
FROM json_each(@rows) WHERE true
ON CONFLICT (keyset_id, jti) DO UPDATE
SET seq = excluded.seq, expires_at = excluded.expires_at, revoked_at = excluded.revoked_at, lifted_at = NULL,
    reason = excluded.reason, caller = excluded.caller;

-- name: LiftRevocation :execrows
UPDATE revocations SET seq = @seq, lifted_at = @lifted_at WHERE keyset_id = @keyset_id AND jti = @jti;

-- name: GetRevocationFeed :one
SELECT * FROM revocation_feeds WHERE keyset_id = @keyset_id;

-- name: ListRevocationFeeds :many
SELECT * FROM revocation_feeds ORDER BY keyset_id;

-- name: AdvanceRevocationFeed :exec
UPDATE revocation_feeds SET last_seq = @last_seq WHERE keyset_id = @keyset_id;

-- name: AdvanceRevocationFeeds :exec
-- To the last row of each, which RevokeMatching may have written.
UPDATE revocation_feeds
SET last_seq = max(last_seq, coalesce(
    (SELECT max(r.seq) FROM revocations r WHERE r.keyset_id = revocation_feeds.keyset_id), 0));

-- name: SetFeedEpoch :exec
UPDATE revocation_feeds SET epoch = @epoch WHERE keyset_id = @keyset_id;

-- name: PruneRevocations :many
-- In steps, so that a large prune does not hold up issuing. Returns what seqs
-- were deleted.
DELETE FROM revocations WHERE revocations.keyset_id = sqlc.arg(keyset_id) AND jti IN (
    SELECT r.jti FROM revocations r
    WHERE r.keyset_id = sqlc.arg(keyset_id) AND r.expires_at < @expired_before LIMIT @max_rows
)
RETURNING seq;

-- name: RaiseFeedHorizon :exec
-- To the last row that was deleted, but not past one that is left: a reader that
-- has begun anew would find itself below the horizon until it has read that far.
UPDATE revocation_feeds
SET horizon = max(horizon, min(CAST(sqlc.arg(gone) AS integer), coalesce(
    (SELECT min(r.seq) - 1 FROM revocations r WHERE r.keyset_id = revocation_feeds.keyset_id), CAST(sqlc.arg(gone) AS integer))))
WHERE revocation_feeds.keyset_id = @keyset_id;
