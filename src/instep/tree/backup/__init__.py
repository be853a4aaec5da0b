"""The files of a backup: captured from a tree that is in use, hashed again, and put in the place of a tree."""
