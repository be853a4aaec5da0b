-- Changes from elsewhere: the facts of the machines of both sides, and the change sets that a home was given, with
-- "kept" until they are answered. "at_ms" is the wall clock of the last of the two.

CREATE TABLE change_state (
    fileset TEXT NOT NULL,
    origin TEXT NOT NULL,
    side TEXT NOT NULL,
    state BLOB NOT NULL,
    PRIMARY KEY (fileset, origin, side)
);

CREATE TABLE change_set (
    id BLOB PRIMARY KEY,
    fileset TEXT NOT NULL,
    origin TEXT NOT NULL,
    at_ms INTEGER NOT NULL,
    kept BLOB,
    answer BLOB
);
CREATE INDEX change_set_age ON change_set (fileset, origin, at_ms);
