"""Tasks of the literature: whole specifications, whose truth anyone with the data can build; one file a task.

Each has a tiny twin, ``NAME-tiny`` of the plugin tests/benchmark/tasks/twins.py, which walks its code in seconds.
"""
