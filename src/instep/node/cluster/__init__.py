"""A node's part in what its cluster shares: the connection with its database, leases, and what runs under them."""
