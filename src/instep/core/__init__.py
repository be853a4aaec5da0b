"""What decides: pure machines and planners; events in, effects out."""
