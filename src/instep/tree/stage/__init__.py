"""A generation laid beside the live tree, verified and durable before anything moves."""
