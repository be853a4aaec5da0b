"""The plan of a switch, the journal of its steps, and moves that overwrite nothing unseen."""
