"""The file system: scan, watch, digest, stage, journal, switch, archive."""
