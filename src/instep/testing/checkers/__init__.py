"""Checkers of the rules: promises, rest and rollouts, seen from outside the nodes."""
