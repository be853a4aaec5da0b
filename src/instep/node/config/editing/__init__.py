"""Edits of `instep.toml` by commands and the daemon, beside persons who edit it too; its meaning is read outside."""
