"""Layouts of known applications: their files, and a move from the stop of the application to its start."""
