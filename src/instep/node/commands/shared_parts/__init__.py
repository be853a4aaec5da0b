"""Commands about rights in the cluster's database: leases, jobs, seats, standby."""
