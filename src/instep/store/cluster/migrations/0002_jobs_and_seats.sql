-- What the settings of each node say of a job or pool, and what counts for all: the value that was changed last.
CREATE TABLE instep_declared (
    subject text NOT NULL,
    node text NOT NULL,
    value text NOT NULL,
    PRIMARY KEY (subject, node)
);
CREATE TABLE instep_agreed (
    subject text PRIMARY KEY,
    value text NOT NULL,
    node text NOT NULL,
    since_ms bigint NOT NULL
);

-- Runs of jobs (the key is the tick) and of requests. The primary key is what starts a tick once. A run that is
-- "waiting" is any node's to claim; one that is "running" is its node's while it is renewed.
CREATE TABLE instep_run (
    subject text NOT NULL,
    key text NOT NULL,
    attempt bigint NOT NULL,
    state text NOT NULL,
    due_at_ms bigint NOT NULL,
    payload text NOT NULL,
    asked_by text NOT NULL,
    on_lost text NOT NULL,
    node text NOT NULL,
    session text NOT NULL,
    started_at_ms bigint NOT NULL,
    expires_at_ms bigint NOT NULL,
    ended_at_ms bigint NOT NULL,
    exit_code bigint,
    reason text NOT NULL,
    tail text NOT NULL,
    PRIMARY KEY (subject, key, attempt)
);
CREATE INDEX instep_run_open ON instep_run (state, subject);
CREATE INDEX instep_run_due ON instep_run (subject, due_at_ms);

-- A user's place in a pool, and how often each node uses it. "expires_at_ms" of a seat is the latest of its uses, or
-- the end of its lingering.
CREATE TABLE instep_seat (
    pool text NOT NULL,
    user_key text NOT NULL,
    user_name text NOT NULL,
    since_ms bigint NOT NULL,
    expires_at_ms bigint NOT NULL,
    PRIMARY KEY (pool, user_key)
);
CREATE TABLE instep_seat_use (
    pool text NOT NULL,
    user_key text NOT NULL,
    node text NOT NULL,
    boot text NOT NULL,
    times bigint NOT NULL,
    expires_at_ms bigint NOT NULL,
    PRIMARY KEY (pool, user_key, node)
);
CREATE INDEX instep_seat_use_node ON instep_seat_use (node, pool);
