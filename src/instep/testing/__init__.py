"""The simulated world, faults and factories."""
