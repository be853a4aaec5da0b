"""Commands about rights in the cluster's database, and parts of results about them."""
