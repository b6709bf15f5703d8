"""The contract suite: what every method promises, checked on tiny problems."""
