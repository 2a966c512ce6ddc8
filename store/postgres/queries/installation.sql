-- name: Now :one
SELECT clock_timestamp()::timestamptz AS now;

-- name: GetInstallation :one
SELECT id, generation, key_check, incarnation FROM installation;

-- name: InsertInstallation :exec
-- Two first starts at once: the second one's row is not inserted, and it goes
-- on with the first one's.
INSERT INTO installation (id, key_check, created_at) VALUES (@id, @key_check, now())
ON CONFLICT DO NOTHING;

-- name: SetIncarnation :execrows
UPDATE installation SET incarnation = @incarnation WHERE incarnation = @was;

-- name: BumpGeneration :one
UPDATE installation SET generation = generation + 1 RETURNING generation;

-- name: LeapGeneration :exec
-- Past every generation that a replica may have loaded from another copy of the
-- data.
UPDATE installation SET generation = generation + 1048576;
