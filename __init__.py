"""tdabench: which training-data-attribution method for diffusion models can be trusted, and what it costs."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .benchmark.attribution.api import attribute

__version__ = "0.1.0"
__all__ = ["__version__", "attribute"]


def __getattr__(name: str) -> Any:
    """Import what is heavy when it is asked for, so that the command line answers at once."""
    if name == "attribute":
        from .benchmark.attribution.api import attribute

        return attribute
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
