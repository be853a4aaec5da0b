"""The simulated cluster: the real machines, records and messages under a written fault model, by seed.

``docs/simulator.md`` lists its faults and its checks. ``python -m instep.testing SEED``
replays one seed, ``--soak --seconds N`` runs fresh ones.
"""
