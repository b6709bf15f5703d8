"""One file per task: a literal TASK."""
