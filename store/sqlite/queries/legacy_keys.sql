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
