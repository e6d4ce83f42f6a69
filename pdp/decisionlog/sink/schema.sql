-- The table of the decision log. The program needs no more than: GRANT INSERT ON decision_log TO its role.
CREATE TABLE decision_log (
    decision_id text        NOT NULL,
    decided_at  timestamptz NOT NULL,
    outcome     text        NOT NULL,
    record      jsonb       NOT NULL,
    PRIMARY KEY (decision_id, decided_at)
);
CREATE INDEX decision_log_decided_at ON decision_log (decided_at);
