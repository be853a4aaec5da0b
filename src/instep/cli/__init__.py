"""The command line: its door, its session with a daemon, its output, and the pages made from it. Keeps no state."""
