-- name: InsertLegacyKey :exec
INSERT INTO legacy_keys (id, kind, serial, state, secret, digest, thumbprint, imported, created_by, created_at, retired_at, version, mac)
VALUES (@id, @kind, @serial, @state, @secret, @digest, @thumbprint, @imported, @created_by, @created_at, @retired_at, @version, @mac);

-- name: ListLegacyKeys :many
SELECT * FROM legacy_keys WHERE kind = @kind ORDER BY serial;

-- name: UpdateLegacyKey :execrows
-- The WHERE clause is the state machine, as with signing_keys.
UPDATE legacy_keys
SET state = @state, secret = @secret, retired_at = @retired_at, removed_at = @removed_at, version = version + 1, mac = @mac
WHERE id = @id AND state = @was_state AND version = @was_version;

-- name: TakeTurnWithLegacyKeys :exec
-- Whoever issues with the keys of a kind or changes them takes turns, in the order
-- of asking, so that a removal is not passed by tokens that are issued meanwhile.
SELECT pg_advisory_xact_lock(hashtextextended('legacy_keys/' || (@kind::text), 0));
