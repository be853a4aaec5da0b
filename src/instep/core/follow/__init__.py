"""The ``FollowMachine`` of a line at a partner: heads, applying, local changes, permits."""
