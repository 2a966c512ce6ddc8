-- +goose Up

-- The same tables as in ../postgres, where their meaning is explained. Times are
-- microseconds since 1970 in UTC, UUIDs are text.

CREATE TABLE installation (
    singleton integer PRIMARY KEY CHECK (singleton = 1),
    id text NOT NULL,
    generation integer NOT NULL DEFAULT 1,
    key_check blob NOT NULL,
    created_at integer NOT NULL
) STRICT;

CREATE TABLE keysets (
    id text PRIMARY KEY,
    name text NOT NULL UNIQUE,
    profile text NOT NULL,
    algorithm text NOT NULL,
    backend text NOT NULL,
    distribution text NOT NULL CHECK (distribution IN ('jwks', 'kuma-sync', 'manual')),
    policy text NOT NULL,
    created_at integer NOT NULL,
    updated_at integer NOT NULL,
    version integer NOT NULL,
    mac blob NOT NULL
) STRICT;

CREATE TABLE signing_keys (
    id text PRIMARY KEY,
    keyset_id text NOT NULL REFERENCES keysets (id),
    serial integer NOT NULL CHECK (serial > 0),
    role text NOT NULL CHECK (role IN ('primary', 'standby')),
    state text NOT NULL CHECK (state IN ('creating', 'failed', 'published', 'abandoned',
                                         'active', 'retiring', 'removed', 'distrusted')),
    algorithm text NOT NULL,
    backend text NOT NULL,
    label text NOT NULL UNIQUE,
    ref blob,
    kid text,
    thumbprint text UNIQUE,
    public_key blob,
    imported integer NOT NULL DEFAULT 0,
    trusted_until integer,
    attestation blob,
    reason text NOT NULL DEFAULT '',
    created_at integer NOT NULL,
    published_at integer,
    activate_after integer,
    activated_at integer,
    retired_at integer,
    removed_at integer,
    destroyed_at integer,
    version integer NOT NULL,
    mac blob NOT NULL,

    last_expiry integer NOT NULL DEFAULT 0,

    lease_owner text,
    lease_fence integer NOT NULL DEFAULT 0,
    lease_until integer,

    UNIQUE (keyset_id, serial),
    UNIQUE (keyset_id, kid),
    CHECK (state IN ('creating', 'failed') OR (kid IS NOT NULL AND thumbprint IS NOT NULL AND public_key IS NOT NULL))
) STRICT;

CREATE UNIQUE INDEX signing_keys_one_active ON signing_keys (keyset_id, role) WHERE state = 'active';

CREATE TABLE ledger (
    jti text NOT NULL PRIMARY KEY,
    keyset_id text NOT NULL,
    serial integer NOT NULL,
    subject text NOT NULL,
    scopes text NOT NULL,
    issued_at integer NOT NULL,
    expires_at integer NOT NULL,
    caller text NOT NULL,
    writer text NOT NULL,
    batch integer NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX ledger_by_key ON ledger (keyset_id, serial, expires_at);

CREATE TABLE ledger_batches (
    writer text NOT NULL,
    batch integer NOT NULL,
    row_count integer NOT NULL,
    first_jti text NOT NULL,
    last_jti text NOT NULL,
    hash blob NOT NULL,
    mac blob NOT NULL,
    committed_at integer NOT NULL,
    PRIMARY KEY (writer, batch)
) STRICT;

CREATE TABLE revocation_feeds (
    keyset_id text PRIMARY KEY REFERENCES keysets (id),
    epoch text NOT NULL,
    last_seq integer NOT NULL DEFAULT 0,
    horizon integer NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE revocations (
    keyset_id text NOT NULL REFERENCES keysets (id),
    jti text NOT NULL,
    seq integer NOT NULL,
    expires_at integer NOT NULL,
    revoked_at integer NOT NULL,
    lifted_at integer,
    reason text NOT NULL DEFAULT '',
    caller text NOT NULL,
    PRIMARY KEY (keyset_id, jti),
    UNIQUE (keyset_id, seq)
) STRICT;

CREATE INDEX revocations_by_expiry ON revocations (expires_at);

CREATE TABLE audit_events (
    id text PRIMARY KEY,
    at integer NOT NULL,
    actor text NOT NULL,
    action text NOT NULL,
    target text NOT NULL,
    detail text NOT NULL,
    request_id text NOT NULL
) STRICT;

CREATE TABLE api_tokens (
    id text PRIMARY KEY,
    name text NOT NULL,
    hash blob NOT NULL UNIQUE,
    roles text NOT NULL,
    keysets text NOT NULL,
    zones text NOT NULL,
    scopes text NOT NULL,
    max_valid_for_s integer NOT NULL,
    created_by text NOT NULL,
    created_at integer NOT NULL,
    expires_at integer NOT NULL,
    revoked_at integer,
    version integer NOT NULL,
    mac blob NOT NULL
) STRICT;

CREATE TABLE replicas (
    id text PRIMARY KEY,
    name text NOT NULL,
    version text NOT NULL,
    started_at integer NOT NULL,
    lease_until integer NOT NULL,
    generation integer NOT NULL,
    clock_offset_us integer NOT NULL
) STRICT;

CREATE TABLE acknowledgements (
    keyset_id text NOT NULL REFERENCES keysets (id),
    consumer text NOT NULL,
    kids text NOT NULL,
    generation integer NOT NULL,
    caller text NOT NULL,
    acked_at integer NOT NULL,
    PRIMARY KEY (keyset_id, consumer)
) STRICT;
