-- The two functions that SQL asks; SQLite gets the same from the process that opens it.
CREATE OR REPLACE FUNCTION instep_now_ms() RETURNS bigint LANGUAGE sql VOLATILE AS
$$ SELECT CAST(floor(extract(epoch FROM clock_timestamp()) * 1000) AS bigint) $$;

-- The first 8 digits of a file of the write-ahead log are the timeline, which a promotion raises.
CREATE OR REPLACE FUNCTION instep_server() RETURNS text LANGUAGE sql VOLATILE AS
$$ SELECT system_identifier::text || '/' || left(pg_walfile_name(pg_current_wal_lsn()), 8) FROM pg_control_system() $$;
