"""Tasks: what one is, how it is found, and one file a task."""
