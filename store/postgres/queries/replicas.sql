-- name: Heartbeat :one
-- Renews a replica's lease. The answer's clock is read when the row is written.
WITH beat AS (
    INSERT INTO replicas (id, name, version, started_at, lease_until, generation, clock_offset_us, lease_us, cache_us, acked_at)
    VALUES (@id, @name, @version, now(), now() + make_interval(secs => @seconds::float8), @generation, @clock_offset_us,
            @lease_us, @cache_us, now())
    ON CONFLICT (id) DO UPDATE
    SET lease_until = excluded.lease_until, generation = excluded.generation, clock_offset_us = excluded.clock_offset_us,
        lease_us = excluded.lease_us, cache_us = excluded.cache_us,
        acked_at = CASE WHEN replicas.generation = excluded.generation THEN replicas.acked_at ELSE excluded.acked_at END
)
SELECT clock_timestamp()::timestamptz AS now, generation FROM installation;

-- name: Leave :exec
-- The row stays for a day: verifiers may go on using what the replica has served.
UPDATE replicas SET lease_until = now() - interval '1 microsecond' WHERE id = @id;

-- name: ListReplicas :many
SELECT id, name, version, started_at, lease_until, generation, clock_offset_us, lease_us, cache_us, acked_at
FROM replicas ORDER BY started_at, id;

-- name: ForgetReplicas :exec
-- Replicas that ended without leaving, a day after their lease ran out.
DELETE FROM replicas WHERE lease_until < now() - interval '1 day';
