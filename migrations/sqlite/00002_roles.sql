-- +goose Up
-- One row: which life of the data this is, and how often it has changed. A change locks it first, so that changes have an order.
CREATE TABLE directory_state (
    id       integer NOT NULL CONSTRAINT directory_state_pkey PRIMARY KEY CONSTRAINT directory_state_one_check CHECK (id = 1),
    epoch    text    NOT NULL,
    revision integer NOT NULL
);
INSERT INTO directory_state (id, epoch, revision) VALUES (1, lower(hex(randomblob(16))), 0);

-- What the newest changes have made, as it is sent to decision points.
CREATE TABLE directory_changes (
    revision integer     NOT NULL CONSTRAINT directory_changes_pkey PRIMARY KEY,
    at       timestamp   NOT NULL,
    line     text        NOT NULL
);
CREATE INDEX directory_changes_at_idx ON directory_changes (at);

CREATE TABLE roles (
    name        text        NOT NULL CONSTRAINT roles_pkey PRIMARY KEY,
    description text        NOT NULL,
    protected   boolean     NOT NULL,
    inherits    text        NOT NULL,
    permissions text        NOT NULL,
    version     integer     NOT NULL,
    created_at  timestamp   NOT NULL,
    updated_at  timestamp   NOT NULL
);

-- No foreign key to users: a subject may be anybody whom an issuer names. No tenant ('') is everywhere.
CREATE TABLE role_bindings (
    id          text        NOT NULL CONSTRAINT role_bindings_pkey PRIMARY KEY,
    subject     text        NOT NULL,
    role        text        NOT NULL REFERENCES roles (name),
    tenant      text        NOT NULL,
    until       timestamp,
    reason      text        NOT NULL,
    ticket      text        NOT NULL,
    break_glass boolean     NOT NULL,
    granted_by  text        NOT NULL,
    granted_at  timestamp   NOT NULL
);
CREATE UNIQUE INDEX role_bindings_held_key ON role_bindings (subject, role, tenant);
CREATE INDEX role_bindings_role_idx ON role_bindings (role);
CREATE INDEX role_bindings_until_idx ON role_bindings (until);

CREATE TABLE subjects (
    id          text        NOT NULL CONSTRAINT subjects_pkey PRIMARY KEY,
    tenant      text        NOT NULL,
    group_names text        NOT NULL,
    attributes  text        NOT NULL,
    version     integer     NOT NULL,
    created_at  timestamp   NOT NULL,
    updated_at  timestamp   NOT NULL
);

-- One line for each revision.
CREATE TABLE role_audit (
    revision   integer     NOT NULL CONSTRAINT role_audit_pkey PRIMARY KEY,
    at         timestamp   NOT NULL,
    actor      text        NOT NULL,
    action     text        NOT NULL,
    target     text        NOT NULL,
    before     text        NOT NULL,
    after      text        NOT NULL,
    reason     text        NOT NULL,
    ticket     text        NOT NULL,
    request_id text        NOT NULL
);
CREATE INDEX role_audit_target_idx ON role_audit (target, revision);
CREATE INDEX role_audit_actor_idx ON role_audit (actor, revision);
