"""How a command ends, whatever a user, a terminal or the system does meanwhile."""
