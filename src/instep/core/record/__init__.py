"""The flight recorder of a machine: its last events as a file that can be loaded and replayed; no I/O here."""
