"""The move of an installation's files: copied, verified, journaled in the destination, originals deleted on request."""
