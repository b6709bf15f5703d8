"""Tables across tasks, and across the truths of one."""
