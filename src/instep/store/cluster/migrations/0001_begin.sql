CREATE TABLE instep_schema (
    one bigint PRIMARY KEY CHECK (one = 1),
    version bigint NOT NULL
);
INSERT INTO instep_schema VALUES (1, 0);

-- One row: which cluster this is, on which server its last era began, and until when no lease changes hands.
CREATE TABLE instep_era (
    one bigint PRIMARY KEY CHECK (one = 1),
    cluster text NOT NULL,
    server text NOT NULL,
    era bigint NOT NULL,
    quiet_until_ms bigint NOT NULL,
    longest_ttl_ms bigint NOT NULL
);

-- The nodes: "identity" names the machine and the node directory, "session" one start of the daemon.
CREATE TABLE instep_member (
    name text PRIMARY KEY,
    identity text NOT NULL,
    session text NOT NULL,
    version text NOT NULL,
    seen_at_ms bigint NOT NULL
);

-- "holder" is a node and "session" who holds there; a lease that was given back has none. "counter" rises whenever
-- the lease changes hands or eras.
CREATE TABLE instep_lease (
    name text PRIMARY KEY,
    holder text NOT NULL,
    session text NOT NULL,
    era bigint NOT NULL,
    counter bigint NOT NULL,
    ttl_ms bigint NOT NULL,
    taken_at_ms bigint NOT NULL,
    expires_at_ms bigint NOT NULL,
    reason text NOT NULL
);
