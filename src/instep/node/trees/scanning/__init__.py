"""A writer's look at its tree: the watch, the scan, held paths, and the next manifest."""
