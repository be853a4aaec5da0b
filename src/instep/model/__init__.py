"""The nouns: frozen, validated values without I/O or clock."""
