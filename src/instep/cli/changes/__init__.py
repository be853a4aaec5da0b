"""Commands about changes that are made elsewhere than where a fileset is written: locks, edits, offers."""
