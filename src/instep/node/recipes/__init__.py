"""Ready settings for known applications: recipe files, where they lie, what they become. Nothing here runs anything."""
