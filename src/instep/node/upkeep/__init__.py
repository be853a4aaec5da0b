"""Work in the background of a node: letting go, mending, and following a change of writer in its own file."""
