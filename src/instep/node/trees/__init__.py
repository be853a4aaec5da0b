"""One fileset's tree on this node: where it is, what it holds, how it is looked at, kept and served."""
