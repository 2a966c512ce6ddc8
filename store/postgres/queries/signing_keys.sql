-- name: InsertSigningKey :exec
INSERT INTO signing_keys (id, keyset_id, serial, role, state, algorithm, backend, label, kid, thumbprint, public_key,
                          imported, trusted_until, reason, created_at, published_at, activate_after, retired_at, adopted, version, mac)
VALUES (@id, @keyset_id, @serial, @role, @state, @algorithm, @backend, @label, @kid, @thumbprint, @public_key,
        @imported, @trusted_until, @reason, @created_at, @published_at, @activate_after, @retired_at, @adopted, @version, @mac);

-- name: ListLiveSigningKeys :many
-- What a replica needs to sign and to publish: everything but the ended states.
SELECT * FROM signing_keys
WHERE state IN ('creating', 'published', 'active', 'retiring')
ORDER BY keyset_id, serial;

-- name: ListSigningKeysOfKeyset :many
SELECT * FROM signing_keys WHERE keyset_id = @keyset_id ORDER BY serial;

-- name: ListKeysOf :many
-- The live keys of one keyset, as ListLiveSigningKeys has them.
SELECT * FROM signing_keys
WHERE keyset_id = @keyset_id AND state IN ('creating', 'published', 'active', 'retiring')
ORDER BY serial;

-- name: GetSigningKey :one
SELECT * FROM signing_keys WHERE keyset_id = @keyset_id AND serial = @serial;

-- name: ListSeries :many
-- How far each keyset has come: its last serial, and since when it may have signed.
-- A key that has retired may have signed before, too: activated_at is of the last time.
SELECT keyset_id, max(serial)::integer AS last_serial,
       coalesce(min(CASE WHEN retired_at IS NULL THEN activated_at ELSE least(activated_at, published_at) END)
                FILTER (WHERE activated_at IS NOT NULL), 'epoch')::timestamptz AS signed_since
FROM signing_keys GROUP BY keyset_id;

-- name: GetSeries :one
SELECT coalesce(max(serial), 0)::integer AS last_serial,
       coalesce(min(CASE WHEN retired_at IS NULL THEN activated_at ELSE least(activated_at, published_at) END)
                FILTER (WHERE activated_at IS NOT NULL), 'epoch')::timestamptz AS signed_since
FROM signing_keys WHERE keyset_id = @keyset_id;

-- name: CloseGateOfKeyset :exec
-- Lets no batch of the key's keyset begin until the end of the transaction, and
-- waits for those that have begun; see AppendLedger.
SELECT pg_advisory_xact_lock(hashtextextended(keyset_id::text, 0)) FROM signing_keys WHERE id = @id;

-- name: LockSigningKey :one
SELECT * FROM signing_keys WHERE id = @id FOR NO KEY UPDATE;

-- name: ClaimSigningKey :one
-- Takes the lease on a key that is being made, if nobody else holds it: it has
-- not run out, and its holder is a replica that is still alive. The fence tells
-- this holder's writes from those of a holder before it.
UPDATE signing_keys
SET lease_owner = @owner, lease_fence = lease_fence + 1, lease_until = now() + make_interval(secs => @seconds::float8)
WHERE signing_keys.id = @id AND state = 'creating'
  AND (signing_keys.lease_until IS NULL OR signing_keys.lease_until < now() OR lease_owner = @owner
       OR lease_owner NOT IN (SELECT r.id FROM replicas r WHERE r.lease_until >= now()))
RETURNING lease_fence;

-- name: ReleaseSigningKey :exec
-- Gives a lease back, if it is still the holder's.
UPDATE signing_keys SET lease_until = now() - interval '1 microsecond' WHERE id = @id AND lease_fence = @fence;

-- name: UpdateSigningKey :execrows
-- The WHERE clause is the state machine: a change that was decided on another
-- state than the row has, or on an older version of it, changes nothing.
UPDATE signing_keys
SET state = @state, ref = @ref, kid = @kid, thumbprint = @thumbprint, public_key = @public_key, reason = @reason,
    published_at = @published_at, activate_after = @activate_after, activated_at = @activated_at,
    retired_at = @retired_at, removed_at = @removed_at, destroyed_at = @destroyed_at, destroy_asked_at = @destroy_asked_at,
    attestation = @attestation,
    version = version + 1, mac = @mac
WHERE id = @id AND state = @was_state AND version = @was_version AND (@fence::bigint = 0 OR lease_fence = @fence);

-- name: GetLastExpiry :one
SELECT last_expiry FROM signing_keys WHERE id = @id;

-- name: RaiseLastExpiry :exec
-- Behind the gate, like every change of a key that may be signing.
WITH gate AS MATERIALIZED (
    SELECT k.id, pg_advisory_xact_lock(hashtextextended(k.keyset_id::text, 0)) FROM signing_keys k WHERE k.id = @id
)
UPDATE signing_keys SET last_expiry = @expiry FROM gate
WHERE signing_keys.id = gate.id AND signing_keys.state = 'active' AND signing_keys.last_expiry < @expiry;
