-- name: InsertAuditEvent :exec
INSERT INTO audit_events (id, at, actor, action, target, detail, request_id)
VALUES (@id, @at, @actor, @action, @target, @detail, @request_id);

-- name: ListAuditEvents :many
-- IDs are of the moment, so that the page is read from the primary key's end.
SELECT id, at, actor, action, target, detail, request_id FROM audit_events
WHERE id < @before_id AND starts_with(action, @action_prefix)
  AND (actor = @actor OR @actor = '')
  AND (at >= sqlc.narg(after)::timestamptz OR sqlc.narg(after)::timestamptz IS NULL)
  AND (at < sqlc.narg(before)::timestamptz OR sqlc.narg(before)::timestamptz IS NULL)
ORDER BY id DESC LIMIT @max_rows;
