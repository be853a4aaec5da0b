"""From the staged generation to the live one, step by step, and the way back."""
