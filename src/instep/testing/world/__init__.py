"""Virtual time, chance, the lying network, disks that forget, and what every simulated node has."""
