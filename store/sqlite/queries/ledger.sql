-- name: MaySign :one
SELECT EXISTS (
    SELECT 1 FROM signing_keys WHERE id = @id AND state = 'active' AND issue_barrier <= @min_issued
) AS may;

-- name: MayCall :one
SELECT EXISTS (
    SELECT 1 FROM api_tokens WHERE id = @id AND revoked_at IS NULL AND expires_at > @now
) AS may;

-- name: InsertIssuances :exec
-- All rows of a batch in one statement, from a JSON array of arrays: crossing
-- into the engine once per row is what would cost.
INSERT INTO ledger (jti, keyset_id, serial, subject, scopes, issued_at, expires_at, caller, writer, batch)
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7, @writer, @batch
FROM json_each(@rows);

-- name: InsertBatch :exec
INSERT INTO ledger_batches (writer, batch, row_count, first_jti, last_jti, hash, mac, committed_at)
VALUES (@writer, @batch, @row_count, @first_jti, @last_jti, @hash, @mac, @committed_at);

-- name: PruneLedger :execrows
-- In steps, so that a large prune does not hold up issuing. By way of the keys,
-- so that the index finds the rows and those that are kept are not read.
DELETE FROM ledger WHERE jti IN (
    SELECT l.jti FROM signing_keys k
    CROSS JOIN ledger l ON l.keyset_id = k.keyset_id AND l.serial = k.serial
    WHERE l.expires_at < @expired_before AND l.jti < @before_jti LIMIT @max_rows
);

-- name: RaiseIssueBarrier :exec
-- Of every key that signs, or may later.
UPDATE signing_keys SET issue_barrier = max(issue_barrier, CAST(sqlc.arg(barrier) AS integer))
WHERE state IN ('creating', 'published', 'active', 'retiring')
  AND (keyset_id = sqlc.arg(keyset_id) OR sqlc.arg(keyset_id) = '');

-- name: CountLiveTokens :many
SELECT serial, count(*) AS tokens FROM ledger WHERE keyset_id = @keyset_id AND expires_at > @now GROUP BY serial;

-- name: GetIssuance :one
SELECT jti, keyset_id, serial, subject, scopes, issued_at, expires_at, caller, writer, batch
FROM ledger WHERE jti = @jti;

-- name: ListLedgerWriters :many
SELECT DISTINCT writer FROM ledger_batches ORDER BY writer;

-- name: ListLedgerBatches :many
SELECT writer, batch, row_count, first_jti, last_jti, hash, mac FROM ledger_batches
WHERE writer = @writer AND batch > @after_batch ORDER BY batch LIMIT @max_rows;

-- name: ListBatchRows :many
SELECT jti, keyset_id, serial, subject, scopes, issued_at, expires_at, caller, writer, batch
FROM ledger WHERE jti BETWEEN @first_jti AND @last_jti AND writer = @writer AND batch = @batch ORDER BY jti;
