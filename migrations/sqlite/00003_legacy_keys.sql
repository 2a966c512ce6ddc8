-- +goose Up

-- The keys of the old HS256 tokens of Kuma and Kong Mesh, explained in ../postgres.
CREATE TABLE legacy_keys (
    id text PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('control-plane', 'zone-ingress')),
    serial integer NOT NULL CHECK (serial > 0),
    state text NOT NULL CHECK (state IN ('active', 'retiring', 'removed')),
    secret blob NOT NULL,
    digest blob NOT NULL UNIQUE,
    thumbprint text,
    imported integer NOT NULL,
    created_by text NOT NULL,
    created_at integer NOT NULL,
    retired_at integer,
    removed_at integer,
    version integer NOT NULL,
    mac blob NOT NULL,

    UNIQUE (kind, serial),
    CHECK ((state = 'removed') = (length(secret) = 0))
) STRICT;

CREATE UNIQUE INDEX legacy_keys_one_active ON legacy_keys (kind) WHERE state = 'active';
