"""The ``RolloutMachine`` of a written line: waves, orders, and what each node is waited for."""
