"""The pages of the panel: views that ask commands, templates that draw, and the fixed table of static files."""
