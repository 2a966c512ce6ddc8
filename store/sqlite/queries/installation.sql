-- name: GetInstallation :one
SELECT id, generation, key_check FROM installation;

-- name: InsertInstallation :exec
INSERT INTO installation (singleton, id, key_check, created_at) VALUES (1, @id, @key_check, @created_at)
ON CONFLICT DO NOTHING;

-- name: BumpGeneration :one
UPDATE installation SET generation = generation + 1 RETURNING generation;
