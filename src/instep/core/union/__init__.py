"""Several lines in one tree: the union of their manifests, its inverse, and which name of a collision wins. Pure."""
