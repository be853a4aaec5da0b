"""Configurations of other programs, read into a plan of commands for `instep import`. Nothing here runs a command."""
