"""What a writer's scan may not become unasked: mass losses, held paths, files that are hot."""
