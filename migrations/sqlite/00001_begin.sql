-- +goose Up
CREATE TABLE users (
    id            text        NOT NULL CONSTRAINT users_pkey PRIMARY KEY,
    email         text        NOT NULL,
    password_hash text        NOT NULL,
    roles         text        NOT NULL,
    attributes    text        NOT NULL,
    verified_at   timestamp,
    disabled_at   timestamp,
    created_at    timestamp   NOT NULL,
    updated_at    timestamp   NOT NULL
);
CREATE UNIQUE INDEX users_email_key ON users (lower(email));

-- At most one code for a user; only its keyed hash is kept.
CREATE TABLE email_codes (
    user_id    text        NOT NULL CONSTRAINT email_codes_pkey PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    hash       blob        NOT NULL,
    attempts   integer     NOT NULL,
    expires_at timestamp   NOT NULL
);

CREATE TABLE sessions (
    id         text        NOT NULL CONSTRAINT sessions_pkey PRIMARY KEY,
    user_id    text        NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    client_id  text        NOT NULL,
    amr        text        NOT NULL,
    created_at timestamp   NOT NULL,
    expires_at timestamp   NOT NULL,
    revoked_at timestamp,
    reason     text        NOT NULL DEFAULT ''
);
CREATE INDEX sessions_user_id_idx ON sessions (user_id);

-- One family for each session. Only the newest token is unspent, so that a family can never branch.
CREATE TABLE refresh_tokens (
    hash       blob        NOT NULL CONSTRAINT refresh_tokens_pkey PRIMARY KEY,
    session_id text        NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    created_at timestamp   NOT NULL,
    expires_at timestamp   NOT NULL,
    spent_at   timestamp,
    successor  blob,
    next_hash  blob,
    CONSTRAINT refresh_tokens_spent_check CHECK ((spent_at IS NULL) = (next_hash IS NULL))
);
CREATE UNIQUE INDEX refresh_tokens_unspent_key ON refresh_tokens (session_id) WHERE spent_at IS NULL;
CREATE INDEX refresh_tokens_session_id_idx ON refresh_tokens (session_id);

-- No foreign key: a revocation outlives what it ended.
CREATE TABLE revocations (
    id         text        NOT NULL CONSTRAINT revocations_pkey PRIMARY KEY,
    kind       text        NOT NULL,
    value      text        NOT NULL,
    not_before timestamp,
    created_at timestamp   NOT NULL,
    expires_at timestamp   NOT NULL
);
CREATE INDEX revocations_expires_at_idx ON revocations (expires_at);

CREATE TABLE signing_keys (
    id         text        NOT NULL CONSTRAINT signing_keys_pkey PRIMARY KEY,
    algorithm  text        NOT NULL,
    state      text        NOT NULL CONSTRAINT signing_keys_state_check CHECK (state IN ('next', 'active', 'retiring')),
    sealed     blob        NOT NULL,
    created_at timestamp   NOT NULL
);
CREATE UNIQUE INDEX signing_keys_one_key ON signing_keys (state) WHERE state <> 'retiring';

-- No foreign key: profiles know nothing of accounts but the id.
CREATE TABLE profiles (
    user_id     text        NOT NULL CONSTRAINT profiles_pkey PRIMARY KEY,
    name        text        NOT NULL,
    avatar_url  text        NOT NULL,
    preferences text        NOT NULL,
    version     integer      NOT NULL,
    created_at  timestamp   NOT NULL,
    updated_at  timestamp   NOT NULL
);
