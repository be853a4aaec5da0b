"""The state of a node behind one port: SQLite, and its twin in memory. Decides nothing."""
