"""Whether rows got worse than a baseline's: pairing, tests of quality, limits on costs, reports."""
