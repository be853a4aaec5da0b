"""The ``RolloutMachine`` of a written line: waves, orders, and the awaited step of each node."""
