"""A fileset of many homes on this node: its own line, the kept lines of others, and the union of all in one tree."""
