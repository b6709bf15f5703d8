"""Text of others, made safe to show: what rows and files say may hold anything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...errors import is_printable

HIDDEN = {"Cc", "Cf", "Cs", "Co"}  # control, format (such as those that reverse text), half characters, private ones


def seen(text: str) -> str:
    """Return text with each character that is not seen, or changes how others are, replaced by a visible sign."""
    return "".join(one if is_printable(one, HIDDEN) else "\N{REPLACEMENT CHARACTER}" for one in text)


def all_printable(value: Any) -> Any:
    """Return JSON values with all their text printable, names of fields too."""
    if isinstance(value, str):
        return value if value.isascii() and value.isprintable() else seen(value)
    if isinstance(value, Mapping):
        return {seen(str(name)): all_printable(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [all_printable(inner) for inner in value]
    return value
