"""Commands about nodes: members, the map of the cluster, the check of this node, balancers, access."""
