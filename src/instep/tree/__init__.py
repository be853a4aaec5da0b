"""The file system: the root, scan, watch, stage, journal, switch and archive. Knows no node and no network."""
