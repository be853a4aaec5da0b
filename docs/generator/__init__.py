"""Writes the reference pages and man pages from the code that they describe. It needs the repository, so it is no part
of the product."""
