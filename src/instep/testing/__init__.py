"""The simulated cluster: the real machines, records and messages under a written fault model, by seed.

``docs/simulator.md`` says what can go wrong in it and what is checked. ``python -m instep.testing SEED``
replays one seed, ``--soak --seconds N`` runs fresh ones.
"""
