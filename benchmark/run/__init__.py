"""A cell's life: planned, scheduled, run in a process of its own, measured and stored."""
