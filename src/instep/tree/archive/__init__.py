"""Former contents of a tree: archive batches at every node, and the history of contents at a writer."""
