"""Balancers: files rendered and reloaded, nodes asked on their behalf, and the ports that they ask at."""
