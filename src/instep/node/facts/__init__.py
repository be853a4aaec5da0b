"""Facts about this node, which gates compare and ``check`` shows: read from files, users and programs."""
