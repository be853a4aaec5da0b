"""Simulated writers: the real ``PublishMachine`` and ``RolloutMachine``, and their operators."""
