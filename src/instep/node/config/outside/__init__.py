"""Tables of ``instep.toml`` about people and services outside the cluster: receivers of notices, a sign-in provider."""
