"""``instep.toml`` and frozen settings: declared, read, edited, shown. Nothing of what a daemon does with them."""
