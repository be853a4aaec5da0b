"""Outward work on applications: hooks, balancers, golden answers, and the packaged recipes."""
