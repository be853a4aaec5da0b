"""Persons and programs that give commands: callers, users, tokens, sessions, sign-in, and the audit. Serves no HTTP."""
