"""tdabench: which training-data-attribution method for diffusion models can be trusted, and what it costs."""

__version__ = "0.1.0"
