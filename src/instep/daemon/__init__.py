"""Starts and stops a node's services; the only place that wires them."""
