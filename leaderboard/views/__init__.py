"""Tables made of rows."""
