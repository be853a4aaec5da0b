-- The node that each change set came from, and the sum of what is kept of each node's sets. Rows of before belong to none.

ALTER TABLE change_set ADD COLUMN source TEXT NOT NULL DEFAULT '';

CREATE TABLE change_use (
    fileset TEXT NOT NULL,
    origin TEXT NOT NULL,
    source TEXT NOT NULL,
    sets INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    PRIMARY KEY (fileset, origin, source)
) WITHOUT ROWID;

CREATE TRIGGER change_set_made AFTER INSERT ON change_set BEGIN
    INSERT INTO change_use
    VALUES (new.fileset, new.origin, new.source, 1, length(coalesce(new.kept, '')) + length(coalesce(new.answer, '')))
    ON CONFLICT (fileset, origin, source) DO UPDATE SET sets = sets + 1, bytes = bytes + excluded.bytes;
END;

CREATE TRIGGER change_set_answered AFTER UPDATE ON change_set BEGIN
    UPDATE change_use
    SET bytes = bytes + length(coalesce(new.kept, '')) + length(coalesce(new.answer, ''))
        - length(coalesce(old.kept, '')) - length(coalesce(old.answer, ''))
    WHERE (fileset, origin, source) = (new.fileset, new.origin, new.source);
END;

CREATE TRIGGER change_set_forgotten AFTER DELETE ON change_set BEGIN
    UPDATE change_use
    SET sets = sets - 1, bytes = bytes - length(coalesce(old.kept, '')) - length(coalesce(old.answer, ''))
    WHERE (fileset, origin, source) = (old.fileset, old.origin, old.source);
    DELETE FROM change_use
    WHERE (fileset, origin, source) = (old.fileset, old.origin, old.source) AND sets <= 0;
END;
