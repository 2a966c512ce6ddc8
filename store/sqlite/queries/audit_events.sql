-- name: InsertAuditEvent :exec
INSERT INTO audit_events (id, at, actor, action, target, detail, request_id)
VALUES (@id, @at, @actor, @action, @target, @detail, @request_id);

-- name: ListAuditEvents :many
SELECT id, at, actor, action, target, detail, request_id FROM audit_events
WHERE id < @before_id AND substr(action, 1, length(CAST(sqlc.arg(action_prefix) AS text))) = CAST(sqlc.arg(action_prefix) AS text)
  AND (actor = sqlc.arg(actor) OR sqlc.arg(actor) = '')
  AND at >= sqlc.arg(after) AND at < sqlc.arg(before)
ORDER BY id DESC LIMIT @max_rows;
