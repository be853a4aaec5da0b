"""The peer protocol, TLS and the PKI."""
