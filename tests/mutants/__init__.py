"""Plants faults in a copy of the product and runs the floors that should see them; see ``docs/mutants.md``.

Not a part of ``./run test``: ``python -m tests.mutants --seed N``. Here: the kinds of faults, the floors, and the program.
"""
