"""The processes that methods run in: how they start, what they are kept from, and how they end."""
