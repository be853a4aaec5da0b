"""Node state behind a port: SQLite, and the in-memory twin."""
