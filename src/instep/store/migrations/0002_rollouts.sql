-- What the rollout of each written line intends, and the finished ones, newest with the highest number.

CREATE TABLE rollout_state (
    fileset TEXT NOT NULL,
    origin TEXT NOT NULL,
    state BLOB NOT NULL,
    PRIMARY KEY (fileset, origin)
);

CREATE TABLE rollout (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    fileset TEXT NOT NULL,
    origin TEXT NOT NULL,
    record BLOB NOT NULL
);
CREATE INDEX rollout_line ON rollout (fileset, origin, number);
