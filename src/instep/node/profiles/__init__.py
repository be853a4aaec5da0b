"""Sync profiles as the home of a side knows them: their locks, and the edits made here of paths that they lock."""
