"""Sync runs at the home that carries them out: its own side, the other home's side, and the runs of each profile."""
