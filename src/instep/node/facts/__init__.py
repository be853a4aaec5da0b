"""What gates compare and ``check`` shows: facts about this node, read from files, users and programs."""
