"""The contents of a tree, as sorted entries in a Merkle tree of pages: building, reading, comparing and judging it."""
