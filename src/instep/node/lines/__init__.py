"""What a written and a followed line share: saved facts, ports, hooks, gates, golden answers, epoch records."""
