"""The cluster's database behind one port: SQLite and PostgreSQL, with one text of SQL for both. Decides nothing."""
