"""All decisions: pure machines and planners; events in, effects out."""
