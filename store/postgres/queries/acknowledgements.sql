-- name: PutAcknowledgement :exec
INSERT INTO acknowledgements (keyset_id, consumer, kids, generation, caller, acked_at)
VALUES (@keyset_id, @consumer, @kids, @generation, @caller, @acked_at)
ON CONFLICT (keyset_id, consumer) DO UPDATE
SET kids = excluded.kids, generation = excluded.generation, caller = excluded.caller, acked_at = excluded.acked_at;

-- name: ListAcknowledgements :many
SELECT keyset_id, consumer, kids, generation, caller, acked_at FROM acknowledgements ORDER BY keyset_id, consumer;
