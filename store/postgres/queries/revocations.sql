-- name: IsRevoked :one
SELECT EXISTS (
    SELECT FROM revocations WHERE keyset_id = @keyset_id AND jti = @jti AND lifted_at IS NULL
) AS revoked;
