"""The nouns of several lines in one tree: unions, their parts, collisions, withheld entries, copies wanted."""
