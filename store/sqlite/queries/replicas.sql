-- name: Heartbeat :exec
INSERT INTO replicas (id, name, version, started_at, lease_until, generation, clock_offset_us)
VALUES (@id, @name, @version, @started_at, @lease_until, @generation, @clock_offset_us)
ON CONFLICT (id) DO UPDATE
SET lease_until = excluded.lease_until, generation = excluded.generation, clock_offset_us = excluded.clock_offset_us;

-- name: ForgetAllReplicas :exec
-- No other process can have the database open, so whoever is listed has died.
DELETE FROM replicas;

-- name: Leave :exec
DELETE FROM replicas WHERE id = @id;

-- name: ForgetReplicas :exec
-- Replicas that ended without leaving, a day after their lease ran out.
DELETE FROM replicas WHERE lease_until < @before;
