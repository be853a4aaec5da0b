"""The rules of what a cluster shares: leases, the ticks of jobs, and seats. Nothing here asks a database or a clock."""
