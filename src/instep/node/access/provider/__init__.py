"""Signing in by a provider of OpenID Connect: the way there and back, and the person in its answers. No session."""
