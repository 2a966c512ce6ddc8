-- name: Notify :exec
-- The channel belongs to the database that the connection is to: others on the
-- same server have their own of the same name. Listeners hear of it at the
-- commit.
SELECT pg_notify('zonemint', @topic::text);
