"""What all parts of a row have in common: strict types, names and hashes, and JSON that is as strict."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")]
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$")]


class Strict(BaseModel):
    """A value that takes no unknown field, no other type and no NaN, and does not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def parse_json(data: bytes) -> Any:
    """Return the values of a JSON text; raises ValueError where it is none, or holds NaN or infinities."""
    return json.loads(data, parse_constant=_refuse_constant)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not allowed, write null")


def first_problem(error: ValidationError, whole: str = "the row") -> str:
    """Return the place and message of the first problem, and how many more there are; whole: what was validated."""
    problem, more = error.errors()[0], error.error_count() - 1
    place = ".".join(map(str, problem["loc"])) or whole
    return f"{place}: {problem['msg']}" + (f" (and {more} more)" if more else "")
