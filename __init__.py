"""tdabench: which training-data-attribution method for diffusion models can be trusted, and what it costs."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # What is heavy is imported when it is asked for, so that the command line answers at once.
    if name == "attribute":
        return import_module(f"{__name__}.benchmark.attribution.api").attribute
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
