"""Commands about filesets: what is kept in step, published, restored, rolled out and looked at."""
