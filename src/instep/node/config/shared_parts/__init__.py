"""Jobs, requests and pools in ``instep.toml``: what the nodes of a cluster start and count once, together."""
