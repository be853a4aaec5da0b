"""The move of an installation's files: its layout as data, and one key of a properties file. Pure."""
