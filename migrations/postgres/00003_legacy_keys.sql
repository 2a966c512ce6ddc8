-- +goose Up

-- The keys of the old HS256 tokens of Kuma and Kong Mesh. They are apart from
-- signing_keys, because they are secrets and not key pairs: nothing of them is ever
-- in a JWK set. A row stays after its key was removed, so that neither its serial
-- nor its secret comes back.
-- mac: over every column but itself.
CREATE TABLE legacy_keys (
    id         uuid        PRIMARY KEY,
    kind       text        NOT NULL CHECK (kind IN ('control-plane', 'zone-ingress')),
    serial     integer     NOT NULL CHECK (serial > 0),
    state      text        NOT NULL CHECK (state IN ('active', 'retiring', 'removed')),
    secret     bytea       NOT NULL, -- encrypted under the instance key; empty once the key was removed
    digest     bytea       NOT NULL UNIQUE, -- SHA-256 of the secret: it is in use once
    thumbprint text,                 -- of the public half (RFC 7638), if the secret has the form of a private key
    imported   boolean     NOT NULL,
    created_by text        NOT NULL,
    created_at timestamptz NOT NULL,
    retired_at timestamptz,
    removed_at timestamptz,
    version    bigint      NOT NULL,
    mac        bytea       NOT NULL,

    UNIQUE (kind, serial),
    CHECK ((state = 'removed') = (octet_length(secret) = 0))
);

CREATE UNIQUE INDEX legacy_keys_one_active ON legacy_keys (kind) WHERE state = 'active';
