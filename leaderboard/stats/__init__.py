"""Rankings and intervals."""
