-- name: InsertApiToken :exec
INSERT INTO api_tokens (id, name, hash, roles, keysets, zones, scopes, dataplanes, max_valid_for_s, created_by, created_at, expires_at, version, mac)
VALUES (@id, @name, @hash, @roles, @keysets, @zones, @scopes, @dataplanes, @max_valid_for_s, @created_by, @created_at, @expires_at, @version, @mac);

-- name: GetApiTokenByHash :one
SELECT * FROM api_tokens WHERE hash = @hash;

-- name: LockApiToken :one
SELECT * FROM api_tokens WHERE id = @id;

-- name: ListApiTokens :many
SELECT * FROM api_tokens WHERE id < @before ORDER BY id DESC LIMIT @max_rows;

-- name: RevokeApiToken :execrows
UPDATE api_tokens SET revoked_at = @revoked_at, version = version + 1, mac = @mac
WHERE id = @id AND version = @was_version AND revoked_at IS NULL;
