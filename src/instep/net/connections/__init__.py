"""From a socket to a verified peer: allow lists, TLS, dialling and accepting."""
