"""What a submission says of itself: its method, its licence, the contract suite's report, the hash of every file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from ...errors import CorruptFile, UserError, brief, shown
from ...leaderboard.rows.files import read_row
from ...leaderboard.rows.row import Row
from ...leaderboard.rows.strict import Name, Strict, first_problem, parse_json
from ..unpacking import Listed

SCHEMA_VERSION = 1
DEEPEST = 20  # nested values of a JSON file; a row's metrics take 8
Licence = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 .+()-]{0,99}$")]


class Checked(Strict):
    """The outcome of one check of the contract suite."""

    name: str
    status: Literal["pass", "fail", "skip"]
    detail: str


class Manifest(Strict):
    """A submission: the method's file below ``adapter``, and every file but the manifest itself.

    licence: an SPDX expression; contract: the suite's report on the quick preset; environment: where it was packed.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    method: Name
    method_version: int
    adapter: str
    licence: Licence
    contract: list[Checked]
    environment: dict[str, Any]
    files: dict[str, Listed]


def read_manifest(path: Path) -> Manifest:
    """Return a manifest; raises CorruptFile for what is none, or holds text that is not for people to read."""
    value = plain_json(path.read_bytes(), path.name)
    found = value.get("schema_version") if isinstance(value, dict) else None
    if found != SCHEMA_VERSION:
        raise CorruptFile(f"{path.name} has schema version {shown(found)}, not {SCHEMA_VERSION}: pack it again")
    try:
        return Manifest.model_validate(value)
    except ValidationError as error:
        raise CorruptFile(f"{path.name}: {first_problem(error, 'the manifest')}; pack it again") from error


def read_submitted_row(path: Path, name: str) -> Row:
    """Return a row of a submission; raises CorruptFile for what is none."""
    data = path.read_bytes()
    plain_json(data, name)
    return read_row(data, name)


def plain_json(data: bytes, name: str) -> Any:
    """Return a JSON value of moderate depth, whose text has no control characters and no marks that turn it around."""
    try:
        value = parse_json(data)
    except ValueError as error:
        raise CorruptFile(f"{name} is not valid JSON ({brief(str(error))}): pack it again") from error
    waiting: list[tuple[Any, int]] = [(value, 0)]
    while waiting:
        part, depth = waiting.pop()
        if depth > DEEPEST:
            raise CorruptFile(f"{name} is nested more than {DEEPEST} deep: pack it again")
        if isinstance(part, dict):
            waiting += [(inner, depth + 1) for pair in part.items() for inner in pair]
        elif isinstance(part, list):
            waiting += [(inner, depth + 1) for inner in part]
        elif isinstance(part, str) and not all(c.isprintable() or c in "\n\t" for c in part):
            raise UserError(f"{name} holds text with control characters ({brief(part)!r}): take them out")
    return value
