"""All decisions: pure machines and planners; events in, effects out. No I/O, no clock, no chance."""
