-- +goose Up

-- One row. The generation grows with every change of a keyset or a signing
-- key, in the same transaction; replicas compare it with what they have loaded.
-- key_check is a MAC under the instance key, so that a wrong instance key is
-- noticed before anything is read or written with it.
CREATE TABLE installation (
    singleton  boolean     PRIMARY KEY DEFAULT true CHECK (singleton),
    id         uuid        NOT NULL,
    generation bigint      NOT NULL DEFAULT 1,
    key_check  bytea       NOT NULL,
    created_at timestamptz NOT NULL
);

-- mac: over every column but itself, see store/seal.go.
CREATE TABLE keysets (
    id           uuid        PRIMARY KEY,
    name         text        NOT NULL UNIQUE,
    profile      text        NOT NULL,
    algorithm    text        NOT NULL,
    backend      text        NOT NULL,
    distribution text        NOT NULL CHECK (distribution IN ('jwks', 'kuma-sync', 'manual')),
    -- JSON, kept as the very bytes that the MAC covers: lifetimes, back-dating,
    -- and with later versions rotation, consumers and the standby backend.
    policy       text        NOT NULL,
    created_at   timestamptz NOT NULL,
    updated_at   timestamptz NOT NULL,
    version      bigint      NOT NULL,
    mac          bytea       NOT NULL
);

-- The row is inserted before the key is made: state 'creating', a random label,
-- and a fenced lease that decides which replica makes the key.
-- mac: over every column but itself, the lease and last_expiry.
CREATE TABLE signing_keys (
    id            uuid        PRIMARY KEY,
    keyset_id     uuid        NOT NULL REFERENCES keysets (id),
    serial        integer     NOT NULL CHECK (serial > 0),
    role          text        NOT NULL CHECK (role IN ('primary', 'standby')),
    state         text        NOT NULL CHECK (state IN ('creating', 'failed', 'published', 'abandoned',
                                                        'active', 'retiring', 'removed', 'distrusted')),
    algorithm     text        NOT NULL,
    backend       text        NOT NULL,
    label         text        NOT NULL UNIQUE,
    ref           bytea,
    kid           text,
    thumbprint    text        UNIQUE, -- of the public key (RFC 7638): unique everywhere
    public_key    bytea,              -- PKIX, ASN.1 DER
    imported      boolean     NOT NULL DEFAULT false,
    trusted_until timestamptz,        -- imported keys only: when to stop trusting them
    attestation   bytea,              -- what an HSM says of where the key lives
    reason        text        NOT NULL DEFAULT '',
    created_at    timestamptz NOT NULL,
    published_at  timestamptz,
    activate_after timestamptz,
    activated_at  timestamptz,
    retired_at    timestamptz,
    removed_at    timestamptz,
    destroyed_at  timestamptz,
    version       bigint      NOT NULL,
    mac           bytea       NOT NULL,

    -- An upper bound for the expiry of every token this key has signed; raised
    -- before a token is recorded, never lowered.
    last_expiry   timestamptz NOT NULL DEFAULT 'epoch',

    -- Who is making the key. A holder writes only with the fence it was given.
    lease_owner   uuid,
    lease_fence   bigint      NOT NULL DEFAULT 0,
    lease_until   timestamptz,

    UNIQUE (keyset_id, serial),
    UNIQUE (keyset_id, kid),
    CHECK (state IN ('creating', 'failed') OR (kid IS NOT NULL AND thumbprint IS NOT NULL AND public_key IS NOT NULL))
);

CREATE UNIQUE INDEX signing_keys_one_active ON signing_keys (keyset_id, role) WHERE state = 'active';

-- One row for every token issued; never the token. jti is a UUIDv7, whose first
-- 48 bits are the time, so partitions by jti are partitions by time, and jti
-- alone is the primary key.
CREATE TABLE ledger (
    jti        uuid        NOT NULL PRIMARY KEY,
    keyset_id  uuid        NOT NULL,
    serial     integer     NOT NULL,
    subject    text        NOT NULL,
    scopes     text        NOT NULL, -- JSON array
    issued_at  timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    caller     text        NOT NULL,
    writer     uuid        NOT NULL,
    batch      bigint      NOT NULL
) PARTITION BY RANGE (jti);

-- Takes rows for which no partition was made in time, so that a late
-- maintenance run cannot stop issuing.
CREATE TABLE ledger_default PARTITION OF ledger DEFAULT;

CREATE INDEX ledger_by_key ON ledger (keyset_id, serial, expires_at);

-- Each batch of ledger rows is chained to the batch before it of the same
-- writer: hash = SHA-256(previous hash, rows), mac over (writer, batch, hash).
CREATE TABLE ledger_batches (
    writer       uuid        NOT NULL,
    batch        bigint      NOT NULL,
    row_count    integer     NOT NULL,
    first_jti    uuid        NOT NULL, -- its rows are found in this range of the ledger
    last_jti     uuid        NOT NULL,
    hash         bytea       NOT NULL,
    mac          bytea       NOT NULL,
    committed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (writer, batch)
);

-- The sequence of a keyset's feed is taken from its row here, under its lock,
-- so that a reader who has seen n has seen everything before n. A restored
-- database starts a new epoch. Rows up to the horizon may be gone.
CREATE TABLE revocation_feeds (
    keyset_id uuid   PRIMARY KEY REFERENCES keysets (id),
    epoch     uuid   NOT NULL,
    last_seq  bigint NOT NULL DEFAULT 0,
    horizon   bigint NOT NULL DEFAULT 0
);

CREATE TABLE revocations (
    keyset_id  uuid        NOT NULL REFERENCES keysets (id),
    jti        text        NOT NULL,
    seq        bigint      NOT NULL,
    expires_at timestamptz NOT NULL,
    revoked_at timestamptz NOT NULL,
    -- A tombstone: the jti is not revoked any more. Readers of the feed need it.
    lifted_at  timestamptz,
    reason     text        NOT NULL DEFAULT '',
    caller     text        NOT NULL,
    PRIMARY KEY (keyset_id, jti),
    UNIQUE (keyset_id, seq)
);

CREATE INDEX revocations_by_expiry ON revocations (expires_at);

CREATE TABLE audit_events (
    id         uuid        PRIMARY KEY,
    at         timestamptz NOT NULL,
    actor      text        NOT NULL,
    action     text        NOT NULL,
    target     text        NOT NULL,
    detail     text        NOT NULL, -- JSON object
    request_id text        NOT NULL
);

-- hash is the SHA-256 of a random 256-bit secret.
-- mac: over every column but itself.
CREATE TABLE api_tokens (
    id              uuid        PRIMARY KEY,
    name            text        NOT NULL,
    hash            bytea       NOT NULL UNIQUE,
    roles           text        NOT NULL, -- this and the next three: JSON arrays
    keysets         text        NOT NULL,
    zones           text        NOT NULL,
    scopes          text        NOT NULL,
    max_valid_for_s bigint      NOT NULL, -- seconds; 0: the keyset's
    created_by      text        NOT NULL,
    created_at      timestamptz NOT NULL,
    expires_at      timestamptz NOT NULL,
    revoked_at      timestamptz,
    version         bigint      NOT NULL,
    mac             bytea       NOT NULL
);

-- A replica serves and signs only while its lease lasts. It acknowledges the
-- generation that it has loaded.
CREATE TABLE replicas (
    id              uuid        PRIMARY KEY,
    name            text        NOT NULL,
    version         text        NOT NULL,
    started_at      timestamptz NOT NULL,
    lease_until     timestamptz NOT NULL,
    generation      bigint      NOT NULL,
    clock_offset_us bigint      NOT NULL -- database clock minus the replica's
);

-- What a consumer outside (a control plane, a bridge, a person) says it has.
CREATE TABLE acknowledgements (
    keyset_id  uuid        NOT NULL REFERENCES keysets (id),
    consumer   text        NOT NULL,
    kids       text        NOT NULL, -- JSON array
    generation bigint      NOT NULL,
    caller     text        NOT NULL,
    acked_at   timestamptz NOT NULL,
    PRIMARY KEY (keyset_id, consumer)
);
