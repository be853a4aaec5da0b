"""Outward acts on the application: hooks and probes."""
