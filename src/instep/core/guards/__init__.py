"""The changes that a writer never publishes unasked: mass losses, held paths, files that are hot."""
