"""Power cuts: the disk operations of a run of the tree floor, and every state that a disk may be left in.

Here: the recorder of calls, the model of a disk, the places to cut, and the runs that are cut. Tests that use them
lie in ``tests/contract/test_power_cuts.py``; ``docs/power-cuts.md`` describes the model.
"""
