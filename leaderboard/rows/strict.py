"""What all parts of a row have in common: strict types, names and hashes."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")]
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$")]


class Strict(BaseModel):
    """A value that takes no unknown field, no other type and no NaN, and does not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
