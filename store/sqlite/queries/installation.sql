-- name: GetInstallation :one
SELECT id, generation, key_check, incarnation FROM installation;

-- name: InsertInstallation :exec
INSERT INTO installation (singleton, id, key_check, created_at) VALUES (1, @id, @key_check, @created_at)
ON CONFLICT DO NOTHING;

-- name: SetIncarnation :execrows
UPDATE installation SET incarnation = @incarnation WHERE incarnation = @was;

-- name: BumpGeneration :one
UPDATE installation SET generation = generation + 1 RETURNING generation;

-- name: LeapGeneration :exec
-- Past every generation that a replica may have loaded from another copy of the
-- data.
UPDATE installation SET generation = generation + 1048576;
