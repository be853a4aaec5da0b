-- Node state, first form. Rows below "line" and "stat" are small and go without rowid; pages are large
-- and do not, so that finding one touches only the narrow table.

CREATE TABLE counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO counter VALUES ('sweep', 0), ('barrier', 0);

-- "sweep" is the newest sweep that had begun when the page was last put or found.
CREATE TABLE page (digest BLOB PRIMARY KEY, body INTEGER NOT NULL, sweep INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE page_body (id INTEGER PRIMARY KEY, raw BLOB NOT NULL);

CREATE TABLE blob (digest BLOB PRIMARY KEY, raw BLOB NOT NULL);

CREATE TABLE generation (
    id BLOB PRIMARY KEY,
    fileset TEXT NOT NULL,
    origin TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    number INTEGER NOT NULL,
    record BLOB NOT NULL
);
CREATE UNIQUE INDEX generation_position ON generation (fileset, origin, epoch, number);

CREATE TABLE epoch (
    fileset TEXT NOT NULL,
    origin TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    id BLOB NOT NULL,
    record BLOB NOT NULL,
    PRIMARY KEY (fileset, origin, epoch, id)
);

CREATE TABLE line (
    fileset TEXT NOT NULL,
    origin TEXT NOT NULL,
    state BLOB,
    head BLOB,
    live BLOB,
    PRIMARY KEY (fileset, origin)
);

CREATE TABLE report (
    fileset TEXT NOT NULL,
    origin TEXT NOT NULL,
    partner TEXT NOT NULL,
    report BLOB NOT NULL,
    PRIMARY KEY (fileset, origin, partner)
);

CREATE TABLE named (key TEXT PRIMARY KEY, value BLOB NOT NULL);

CREATE TABLE event (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    at_ms INTEGER NOT NULL,
    kind TEXT NOT NULL,
    fileset TEXT,
    origin TEXT,
    text TEXT NOT NULL,
    facts BLOB NOT NULL
);
CREATE INDEX event_at ON event (at_ms);

CREATE TABLE fileset (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);

-- "key" is the path with "/" as 0x00: its bytewise order is the order of a depth-first scan.
-- "ino" and "dev" are unsigned 64-bit numbers kept as signed ones.
CREATE TABLE stat (
    fileset INTEGER NOT NULL,
    key BLOB NOT NULL,
    ino INTEGER NOT NULL,
    dev INTEGER NOT NULL,
    ctime_ns INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    size INTEGER NOT NULL,
    digest BLOB NOT NULL,
    chunks BLOB NOT NULL,
    read_at_ns INTEGER NOT NULL,
    PRIMARY KEY (fileset, key)
) WITHOUT ROWID;
CREATE INDEX stat_inode ON stat (fileset, ino, dev);
