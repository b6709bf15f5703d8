"""JSON files that diffusers and peft leave beside weights, read without trusting them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ...errors import UserError, brief


def read_settings(path: Path, what: str) -> dict[str, Any]:
    """Return the JSON object in a file; raises UserError, which says to save ``what`` again, for anything else."""
    try:
        return json_object(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({brief(str(error))}): save {what} again") from None


def json_object(text: str) -> dict[str, Any]:
    """Return the JSON object that a text is; raises ValueError for anything else."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("it is no JSON object")
    return value
