"""Simulated homes of one fileset: the real machines of lines and their union over trees that fail, with checkers."""
