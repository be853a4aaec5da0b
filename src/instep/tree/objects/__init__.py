"""Single objects of a tree: their bytes and digests, and the metadata that is kept."""
