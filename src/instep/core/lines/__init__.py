"""Which signed record that a peer sent becomes a head or an epoch of a line."""
