"""Tasks of the literature: whole specifications, whose truth anyone with the data can build; one file a task."""
