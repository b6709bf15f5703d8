"""The command ensembles: searched on dev queries and open subsets, the best ones reported on test and report."""
