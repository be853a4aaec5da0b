-- What a root on shared storage holds: the generation that a node last began to lay there, whether it is whole, and the
-- fence of the lease under which it was laid. "held" is an encoded HeadRef.
CREATE TABLE instep_shared_root (
    fileset text PRIMARY KEY,
    origin text NOT NULL,
    held bytea NOT NULL,
    is_whole bigint NOT NULL,
    node text NOT NULL,
    era bigint NOT NULL,
    counter bigint NOT NULL,
    changed_at_ms bigint NOT NULL
);

-- Paths below a shared root that a node saw being written, for the node that holds its lease. An empty path stands for all.
CREATE TABLE instep_touched (
    fileset text NOT NULL,
    path bytea NOT NULL,
    node text NOT NULL,
    PRIMARY KEY (fileset, path)
);
