"""Simulated partners: the real ``FollowMachine`` over disks and networks that fail."""
