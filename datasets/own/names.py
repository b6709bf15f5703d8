"""How datasets are named that somebody brought, which no module loads."""

OWN = "own-"  # what their names begin with
