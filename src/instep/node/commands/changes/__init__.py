"""Changes that are made elsewhere than where a fileset is written: locks, offers, sync runs."""
