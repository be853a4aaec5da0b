"""The `KeepMachine` of another home's line: its newest head with all pages, and no tree of its own."""
