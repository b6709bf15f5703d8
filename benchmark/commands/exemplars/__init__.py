"""Exemplar truth: making its cases, and the metric of a run on them."""
