"""The writer's side of a line: publishing, restoring, rollouts, and contents asked of partners."""
