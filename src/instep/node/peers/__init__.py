"""Connections with other nodes: links, streams, what each partner may have, and the members of the cluster."""
