"""Contents of a generation wherever they are, here or at partners, written where an operator wants them."""
