"""instep keeps a cluster of servers in step."""

__version__ = "0.1.0"
