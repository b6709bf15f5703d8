"""The command report: the page and its figures, from rows and what is known of their tasks and methods."""
