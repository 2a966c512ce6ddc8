-- name: InsertKeyset :exec
INSERT INTO keysets (id, name, profile, algorithm, backend, distribution, policy, created_at, updated_at, version, mac)
VALUES (@id, @name, @profile, @algorithm, @backend, @distribution, @policy, @created_at, @updated_at, @version, @mac);

-- name: InsertRevocationFeed :exec
INSERT INTO revocation_feeds (keyset_id, epoch) VALUES (@keyset_id, @epoch);

-- name: ListKeysets :many
SELECT id, name, profile, algorithm, backend, distribution, policy, created_at, updated_at, version, mac
FROM keysets ORDER BY name;

-- name: LockKeyset :one
-- Whoever changes the keys of a keyset in more than one row takes its turn here.
SELECT id, name, profile, algorithm, backend, distribution, policy, created_at, updated_at, version, mac
FROM keysets WHERE id = @id;

-- name: UpdateKeyset :execrows
UPDATE keysets
SET algorithm = @algorithm, backend = @backend, distribution = @distribution, policy = @policy,
    updated_at = @updated_at, version = version + 1, mac = @mac
WHERE id = @id AND version = @was_version;
