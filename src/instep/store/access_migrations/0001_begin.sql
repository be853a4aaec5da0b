-- Who may give commands over HTTP, and which commands were given. Kept apart from the node's state, which is rebuilt
-- when it is damaged: this is not.

CREATE TABLE counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO counter VALUES ('barrier', 0);

-- "kind" is user, token, session, link or answer; "at_ms" is when the row was written last.
CREATE TABLE record (
    kind TEXT NOT NULL,
    key TEXT NOT NULL,
    at_ms INTEGER NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (kind, key)
) WITHOUT ROWID;

-- Wrong sign-ins by bucket: the number of rows is bounded by the number of buckets, so none is ever evicted.
CREATE TABLE attempt (bucket TEXT PRIMARY KEY, count INTEGER NOT NULL, since_ms INTEGER NOT NULL) WITHOUT ROWID;

CREATE TABLE audit (number INTEGER PRIMARY KEY AUTOINCREMENT, at_ms INTEGER NOT NULL, record BLOB NOT NULL);
CREATE INDEX audit_at ON audit (at_ms);
