"""What a tree held before: archive batches at every node, and the history of contents at a writer."""
