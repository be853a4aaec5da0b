"""Backups of files and the database that belong together: made, listed, verified, restored. Needs no daemon."""
