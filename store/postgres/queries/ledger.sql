-- name: AppendLedger :one
-- Records a batch, all of it or nothing, in one statement and so in one round
-- trip. It is recorded only if every key in it may sign now, with its
-- last_expiry already raised and no row from before its barrier, and every API
-- token in it is still good. The
-- shared row locks order it against a change of state: whichever commits first,
-- the other sees it.
--
-- Row locks are not fair: shared ones are granted past whoever waits to change
-- the row, so that under steady load a revocation waits for many seconds.
-- Advisory locks queue. A batch therefore first passes the gates of its keysets
-- and API tokens, which whoever changes them closes.
WITH gate AS MATERIALIZED (
    SELECT count(pg_advisory_xact_lock_shared(hashtextextended(g.id::text, 0))) AS passed
    FROM (
        SELECT k.keyset_id AS id FROM signing_keys k WHERE k.id = ANY (@key_ids::uuid[])
        UNION
        SELECT unnest(@caller_ids::uuid[])
        ORDER BY id -- two that wait for each other would be a deadlock
    ) g
), signing AS MATERIALIZED (
    SELECT k.id FROM signing_keys k
    JOIN (
        SELECT unnest(@key_ids::uuid[]) AS id, unnest(@max_expiries::timestamptz[]) AS expiry,
               unnest(@min_issueds::timestamptz[]) AS issued
    ) w ON w.id = k.id
    WHERE (SELECT passed FROM gate) >= 0 AND k.state = 'active' AND k.last_expiry >= w.expiry AND k.issue_barrier <= w.issued
    FOR SHARE OF k
), calling AS MATERIALIZED (
    SELECT t.id FROM api_tokens t
    WHERE (SELECT passed FROM gate) >= 0 AND t.id = ANY (@caller_ids::uuid[]) AND t.revoked_at IS NULL AND t.expires_at > now()
    FOR SHARE OF t
), verdict AS MATERIALIZED (
    SELECT (SELECT count(*) FROM signing) = cardinality(@key_ids)
       AND (SELECT count(*) FROM calling) = cardinality(@caller_ids) AS ok
), recorded AS (
    INSERT INTO ledger (jti, keyset_id, serial, subject, scopes, issued_at, expires_at, caller, writer, batch)
    SELECT r.jti, r.keyset_id, r.serial, r.subject, r.scopes, r.issued_at, r.expires_at, r.caller, @writer::uuid, @batch::bigint
    FROM (
        SELECT unnest(@jtis::uuid[]) AS jti, unnest(@keyset_ids::uuid[]) AS keyset_id, unnest(@serials::integer[]) AS serial,
               unnest(@subjects::text[]) AS subject, unnest(@scopes::text[]) AS scopes,
               unnest(@issued_ats::timestamptz[]) AS issued_at, unnest(@expires_ats::timestamptz[]) AS expires_at,
               unnest(@callers::text[]) AS caller
    ) r WHERE (SELECT ok FROM verdict)
), link AS (
    INSERT INTO ledger_batches (writer, batch, row_count, first_jti, last_jti, hash, mac)
    SELECT @writer::uuid, @batch::bigint, cardinality(@jtis), @first_jti::uuid, @last_jti::uuid, @hash::bytea, @mac::bytea
    WHERE (SELECT ok FROM verdict)
)
SELECT ARRAY (SELECT id FROM signing)::uuid[] AS signing, ARRAY (SELECT id FROM calling)::uuid[] AS calling;

-- name: CloseGates :exec
-- Lets no batch of the keyset, or with none of any, begin until the end of the
-- transaction, and waits for those that have begun. In the order in which batches
-- pass their gates.
SELECT count(pg_advisory_xact_lock(hashtextextended(g.id::text, 0)))
FROM (
    SELECT k.id FROM keysets k WHERE k.id = sqlc.narg(keyset_id) OR sqlc.narg(keyset_id) IS NULL ORDER BY k.id
) g;

-- name: RaiseIssueBarrier :exec
-- Of every key that signs, or may later. Behind the gates.
UPDATE signing_keys SET issue_barrier = greatest(issue_barrier, @barrier)
WHERE state IN ('creating', 'published', 'active', 'retiring')
  AND (keyset_id = sqlc.narg(keyset_id) OR sqlc.narg(keyset_id) IS NULL);

-- name: CountLiveTokens :many
SELECT serial, count(*) AS tokens FROM ledger WHERE keyset_id = @keyset_id AND expires_at > now() GROUP BY serial;

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
