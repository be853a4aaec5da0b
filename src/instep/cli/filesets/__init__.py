"""Commands about filesets: keep in step, publish, restore, roll out and look."""
