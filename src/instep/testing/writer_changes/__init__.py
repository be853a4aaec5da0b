"""Simulated clusters whose writer changes: their nodes, operators, checkers and planted bugs."""
