"""Text of others, made safe to show: what rows and files say may hold anything."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any

KEPT = "\n\t"
HIDDEN = {"Cc", "Cf", "Cs", "Co"}  # control, format (such as those that reverse text), half characters, private ones


def printable(text: str) -> str:
    """Return text with each character that is not seen, or changes how others are, replaced by a visible sign."""
    return "".join("\N{REPLACEMENT CHARACTER}" if _hidden(one) else one for one in text)


def _hidden(character: str) -> bool:
    return character not in KEPT and unicodedata.category(character) in HIDDEN


def all_printable(value: Any) -> Any:
    """Return JSON values with all their text printable, names of fields too."""
    if isinstance(value, str):
        return value if value.isascii() and value.isprintable() else printable(value)
    if isinstance(value, Mapping):
        return {printable(str(name)): all_printable(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [all_printable(inner) for inner in value]
    return value
