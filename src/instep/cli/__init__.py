"""One module per command group; talks to the daemon over its Unix socket."""
