"""Simulated sync runs: two homes whose trees are edited, the node that carries runs out, and checkers of both."""
