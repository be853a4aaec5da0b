"""Single objects of a tree: their bytes and digests, and what beyond bytes is kept."""
