-- name: InsertAuditEvent :exec
INSERT INTO audit_events (id, at, actor, action, target, detail, request_id)
VALUES (@id, @at, @actor, @action, @target, @detail, @request_id);

-- name: ListAuditEvents :many
SELECT id, at, actor, action, target, detail, request_id FROM audit_events ORDER BY id;
