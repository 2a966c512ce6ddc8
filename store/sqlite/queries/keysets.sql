-- name: InsertKeyset :exec
INSERT INTO keysets (id, name, profile, algorithm, backend, distribution, policy, created_at, updated_at, version, mac)
VALUES (@id, @name, @profile, @algorithm, @backend, @distribution, @policy, @created_at, @updated_at, @version, @mac);

-- name: InsertRevocationFeed :exec
INSERT INTO revocation_feeds (keyset_id, epoch) VALUES (@keyset_id, @epoch);

-- name: ListKeysets :many
SELECT id, name, profile, algorithm, backend, distribution, policy, created_at, updated_at, version, mac
FROM keysets ORDER BY name;
