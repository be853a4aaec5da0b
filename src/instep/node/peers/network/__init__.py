"""The network beyond one link: partner lists of all nodes, invitations, and trust between clusters."""
