"""Measures ``instep`` beside the tools that people use today, on one machine, in one run.

``python -m bench --list`` names the rows and the peers. Not part of the wheel.
"""
