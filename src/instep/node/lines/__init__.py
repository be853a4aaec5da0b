"""The common part of written and followed lines: saved facts, ports, hooks, gates, golden answers, epoch records."""
