"""A partner's side of a line: fetching, applying, reverting, reporting, and its part in rollouts."""
