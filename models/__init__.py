"""Denoisers: architectures, noise processes, training, sampling and per-sample losses."""
