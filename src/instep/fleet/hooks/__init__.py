"""Programs, requests, signals and touched files that the node's own configuration names."""
