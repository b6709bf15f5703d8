"""The command plan: what cells would cost, and, where a task has no truth yet, what building it would."""
