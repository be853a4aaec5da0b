"""The daemon: the only place that wires the layers together."""
