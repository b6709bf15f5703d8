"""Words and options of commands."""
