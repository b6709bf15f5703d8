"""What all parts of a row have in common: strict types, names and hashes, and JSON that is as strict."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from ...errors import brief, is_printable

DEEPEST = 100  # values inside each other: what writes and reads rows takes more
TOLERANCE = 1e-9  # by which sums in another order differ

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")]
Text = Annotated[str, AfterValidator(lambda text: _printable(text))]
Free = Annotated[dict[str, Any], AfterValidator(lambda values: _writable(values))]
Count = Annotated[int, Field(ge=0)]
Number = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(ge=0)]
Correlation = Annotated[float, Field(ge=-1 - TOLERANCE, le=1 + TOLERANCE)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$")]


def without_empty(values: dict[str, Any], *later: str) -> dict[str, Any]:
    """Return a part of a row without those ``later`` fields that are empty.

    Rows from before there were such fields are so written byte by byte as they were.
    """
    return {name: value for name, value in values.items() if name not in later or value}


def without_usual(values: dict[str, Any], **usual: Any) -> dict[str, Any]:
    """Return a part of a row without those fields that have their ``usual`` values.

    Rows from before there were others are so written byte by byte as they were, and so are hashes of them.
    """
    return {name: value for name, value in values.items() if name not in usual or value != usual[name]}


def _printable(text: str) -> str:
    """Refuse what a terminal or a page would obey rather than show: control characters, and lone surrogates."""
    odd = next((c for c in text if not is_printable(c)), None)
    if odd is not None:
        raise ValueError(f"it has the character U+{ord(odd):04X}, which is none to be shown")
    return text


def _writable(values: dict[str, Any]) -> dict[str, Any]:
    """Refuse what cannot be written and read again as it was: lone surrogates, and values nested too deeply."""
    level: list[Any] = [values]
    for _ in range(DEEPEST):
        level = [inner for one in level for inner in _inside(one)]
    if level:
        raise ValueError(f"it has values nested deeper than {DEEPEST}")
    return values


def _inside(value: Any) -> list[Any]:
    if isinstance(value, str) and not value.isascii():
        value.encode()
    return [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []


def mean_of(values: Sequence[float | None]) -> float | None:
    """Return the mean of the values that are there."""
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else None


def check_mean(mean: float | None, values: Sequence[float | None]) -> None:
    """Raise ValueError unless ``mean`` is that of the values."""
    expected = mean_of(values)
    if (mean is None) != (expected is None) or abs((mean or 0.0) - (expected or 0.0)) > TOLERANCE:
        raise ValueError("mean is not that of the values")


def check_interval(low: float | None, high: float | None, name: str = "") -> None:
    """Raise ValueError unless both ends are there or none, in order."""
    if (low is None) != (high is None) or (low is not None and high is not None and low > high):
        raise ValueError(f"{name}low is {low} and {name}high {high}")


def check_distinct(names: Sequence[object], what: str) -> None:
    """Raise ValueError where a name stands twice."""
    if len(set(names)) != len(names):
        raise ValueError(f"{what} are not distinct")


class Strict(BaseModel):
    """A value that takes no unknown field, no other type and no NaN, and does not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def parse_json(data: bytes) -> Any:
    """Return a JSON value; raises ValueError for what is none, for numbers that are not finite, and for names twice."""
    try:
        return json.loads(
            data, parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_without_doubles
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not allowed, write null")


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text} is too large a number")
    return value


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"the name {brief(twice)!r} stands twice in one object")
    return found


def first_problem(error: ValidationError, whole: str = "the row") -> str:
    """Return the place and message of the first problem, and how many more there are; whole: what was validated."""
    problem, more = error.errors()[0], error.error_count() - 1
    place = ".".join(map(str, problem["loc"])) or whole
    return brief(f"{place}: {problem['msg']}") + (f" (and {more} more)" if more else "")
