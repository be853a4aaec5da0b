"""One node's services: configuration, trees, lines, peers and commands. ``daemon/`` starts and wires them."""
