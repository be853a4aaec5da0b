"""Heads of a line that another node writes: its sources, the record that becomes the head, and the source to ask."""
