"""The ``PublishMachine`` of an own line at its writer, its guards, and its handling of single paths."""
