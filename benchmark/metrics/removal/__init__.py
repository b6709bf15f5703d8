"""Counterfactual removal: what is removed, and what retrained models then make of the images."""
