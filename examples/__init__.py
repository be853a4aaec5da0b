"""Worked examples with real servers: what they share."""
