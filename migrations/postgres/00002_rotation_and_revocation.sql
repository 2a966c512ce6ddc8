-- +goose Up

-- Which copy of the data this is. A restored database and a promoted standby
-- have another one than is written here, and then readers of the revocation feeds
-- must start over: they may have seen what was lost.
ALTER TABLE installation ADD COLUMN incarnation text NOT NULL DEFAULT '';

-- Rows stamped before the barrier are not recorded any more. Like last_expiry it
-- is not covered by the MAC: raising it can only make tokens be made again.
ALTER TABLE signing_keys ADD COLUMN issue_barrier timestamptz NOT NULL DEFAULT 'epoch';

-- When somebody first wanted the private key destroyed, before the backend was
-- asked to: from then on it may be gone.
ALTER TABLE signing_keys ADD COLUMN destroy_asked_at timestamptz;

-- How long verifiers may use a JWK set of this replica at the longest: its lease,
-- and max-age with stale-if-error.
ALTER TABLE replicas ADD COLUMN lease_us bigint NOT NULL DEFAULT 0;
ALTER TABLE replicas ADD COLUMN cache_us bigint NOT NULL DEFAULT 0;
-- When the replica first said that it has loaded its generation.
ALTER TABLE replicas ADD COLUMN acked_at timestamptz;
