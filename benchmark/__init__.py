"""Tasks, ground truth, the runner and what it measures."""
