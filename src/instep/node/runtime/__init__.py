"""The shared part of a node's services: settings in force, keys, state, drivers, worker threads, logs and drains."""
