-- name: IsRevoked :one
SELECT EXISTS (
    SELECT FROM revocations WHERE keyset_id = @keyset_id AND jti = @jti AND lifted_at IS NULL
) AS revoked;

-- name: GetRevocation :one
SELECT * FROM revocations WHERE keyset_id = @keyset_id AND jti = @jti;

-- name: ListRevocationsByJti :many
SELECT * FROM revocations WHERE keyset_id = @keyset_id AND jti = ANY (@jtis::text[]);

-- name: ListRevocationsAfter :many
SELECT * FROM revocations
WHERE keyset_id = @keyset_id AND seq > @after_seq AND expires_at > now() - make_interval(secs => @grace_seconds::double precision)
  AND (lifted_at IS NULL OR @lifted::boolean)
ORDER BY seq LIMIT @max_rows;

-- name: PutRevocations :exec
INSERT INTO revocations (keyset_id, jti, seq, expires_at, revoked_at, reason, caller)
SELECT @keyset_id::uuid, r.jti, r.seq, r.expires_at, r.revoked_at, r.reason, r.caller
FROM (
    SELECT unnest(@jtis::text[]) AS jti, unnest(@seqs::bigint[]) AS seq, unnest(@expires_ats::timestamptz[]) AS expires_at,
           unnest(@revoked_ats::timestamptz[]) AS revoked_at, unnest(@reasons::text[]) AS reason,
           unnest(@callers::text[]) AS caller
) r
ON CONFLICT (keyset_id, jti) DO UPDATE
SET seq = excluded.seq, expires_at = excluded.expires_at, revoked_at = excluded.revoked_at, lifted_at = NULL,
    reason = excluded.reason, caller = excluded.caller;

-- name: LiftRevocation :execrows
UPDATE revocations SET seq = @seq, lifted_at = @lifted_at WHERE keyset_id = @keyset_id AND jti = @jti;

-- name: GetRevocationFeed :one
SELECT * FROM revocation_feeds WHERE keyset_id = @keyset_id;

-- name: ListRevocationFeeds :many
SELECT * FROM revocation_feeds ORDER BY keyset_id;

-- name: LockRevocationFeed :one
SELECT * FROM revocation_feeds WHERE keyset_id = @keyset_id FOR NO KEY UPDATE;

-- name: LockRevocationFeeds :many
-- In one order, so that two who lock them all do not wait for each other.
SELECT * FROM revocation_feeds ORDER BY keyset_id FOR NO KEY UPDATE;

-- name: AdvanceRevocationFeed :exec
UPDATE revocation_feeds SET last_seq = @last_seq WHERE keyset_id = @keyset_id;

-- name: AdvanceRevocationFeeds :exec
-- To the last of the rows that RevokeMatching has written, in feeds that are
-- locked: nobody else writes to them.
UPDATE revocation_feeds f
SET last_seq = greatest(f.last_seq, (SELECT max(r.seq) FROM revocations r WHERE r.keyset_id = f.keyset_id))
WHERE f.keyset_id = ANY (@keyset_ids::uuid[]);

-- name: RenewRevocationFeeds :exec
-- Begins a new epoch of every feed.
UPDATE revocation_feeds SET epoch = gen_random_uuid();

-- name: PruneRevocations :one
-- Of a feed that is locked.
WITH gone AS (
    DELETE FROM revocations d WHERE d.keyset_id = @keyset_id AND d.jti IN (
        SELECT r.jti FROM revocations r WHERE r.keyset_id = @keyset_id AND r.expires_at < @expired_before LIMIT @max_rows
    )
    RETURNING d.seq
)
SELECT count(*) AS rows, coalesce(max(seq), 0)::bigint AS last FROM gone;

-- name: RaiseFeedHorizon :exec
-- To the last row that was deleted, but not past one that is left: a reader that
-- has begun anew would find itself below the horizon until it has read that far.
UPDATE revocation_feeds f
SET horizon = greatest(f.horizon, least(@gone::bigint,
    (SELECT min(r.seq) - 1 FROM revocations r WHERE r.keyset_id = f.keyset_id)))
WHERE f.keyset_id = @keyset_id;
