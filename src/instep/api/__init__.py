"""Every command of a node once: its parameters, its result, the role that it needs. Nothing here acts."""
