"""From stored scores, truth and retrained models to numbers; nothing here runs a method."""
