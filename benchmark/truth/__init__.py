"""Building ground truth: queries, subsets, retrained models, and what they make of the queries."""
