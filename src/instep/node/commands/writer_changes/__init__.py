"""Commands that change a line's writer: handover, promotion, and the old writer that follows the new line."""
