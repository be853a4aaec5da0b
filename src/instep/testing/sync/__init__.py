"""Simulated sync runs: two homes whose trees are edited, the node that carries runs out, and what must hold of them."""
