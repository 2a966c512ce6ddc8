-- name: InsertApiToken :exec
INSERT INTO api_tokens (id, name, hash, roles, keysets, zones, scopes, dataplanes, max_valid_for_s, created_by, created_at, expires_at, version, mac)
VALUES (@id, @name, @hash, @roles, @keysets, @zones, @scopes, @dataplanes, @max_valid_for_s, @created_by, @created_at, @expires_at, @version, @mac);

-- name: GetApiTokenByHash :one
SELECT * FROM api_tokens WHERE hash = @hash;

-- name: CloseGateOfApiToken :exec
-- Lets no batch with the API token begin until the end of the transaction, and
-- waits for those that have begun; see AppendLedger.
SELECT pg_advisory_xact_lock(hashtextextended((@id::uuid)::text, 0));

-- name: MayCall :many
-- The lock holds off a revocation until this transaction ends.
SELECT id FROM api_tokens
WHERE id = @id AND revoked_at IS NULL AND expires_at > now()
FOR SHARE;

-- name: LockApiToken :one
SELECT * FROM api_tokens WHERE id = @id FOR NO KEY UPDATE;

-- name: ListApiTokens :many
SELECT * FROM api_tokens WHERE id < @before ORDER BY id DESC LIMIT @max_rows;

-- name: RevokeApiToken :execrows
UPDATE api_tokens SET revoked_at = @revoked_at, version = version + 1, mac = @mac
WHERE id = @id AND version = @was_version AND revoked_at IS NULL;
