"""Simulated nodes that hold leases of one database, which fails over and forgets, with checkers and planted bugs."""
