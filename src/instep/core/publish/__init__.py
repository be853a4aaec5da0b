"""The ``PublishMachine`` of an own line at its writer, its guards, and what it does with single paths."""
