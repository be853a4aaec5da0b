"""What every service of a node shares: settings in force, keys, state, drivers, worker threads, logs and drains."""
