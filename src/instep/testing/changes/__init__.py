"""Simulated homes and nodes that offer changes to them: the real machines over disks that forget, with checkers."""
