"""The nouns of several lines in one tree: unions, their parts, collisions and withheld entries."""
