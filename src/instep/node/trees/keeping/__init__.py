"""Contents that a tree held, holds or lends: history, archive and pages, and how they are served and mended."""
