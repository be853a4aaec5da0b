"""From a directory to entries: listing, reading, settling and comparing."""
