"""Checkers of what must hold: promises, rest and rollouts, seen from outside the nodes."""
