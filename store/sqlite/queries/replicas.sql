-- name: Heartbeat :exec
INSERT INTO replicas (id, name, version, started_at, lease_until, generation, clock_offset_us, lease_us, cache_us, acked_at)
VALUES (@id, @name, @version, @started_at, @lease_until, @generation, @clock_offset_us, @lease_us, @cache_us, @started_at)
ON CONFLICT (id) DO UPDATE
SET lease_until = excluded.lease_until, generation = excluded.generation, clock_offset_us = excluded.clock_offset_us,
    lease_us = excluded.lease_us, cache_us = excluded.cache_us,
    acked_at = CASE WHEN replicas.generation = excluded.generation THEN replicas.acked_at ELSE excluded.acked_at END;

-- name: EndAllReplicas :exec
-- No other process can have the database open, so whoever is listed has died.
UPDATE replicas SET lease_until = @now - 1 WHERE lease_until >= @now;

-- name: Leave :exec
-- The row stays for a day: verifiers may go on using what the replica has served.
UPDATE replicas SET lease_until = @now - 1 WHERE id = @id;

-- name: ListReplicas :many
SELECT id, name, version, started_at, lease_until, generation, clock_offset_us, lease_us, cache_us, acked_at
FROM replicas ORDER BY started_at, id;

-- name: ForgetReplicas :exec
-- Replicas that ended without leaving, a day after their lease ran out.
DELETE FROM replicas WHERE lease_until < @before;
