"""Virtual time, chance, the lying network, disks that forget, and the base of every simulated node."""
