"""``instep.toml`` and frozen settings: declared, read, edited, shown. The daemon's use of them is elsewhere."""
