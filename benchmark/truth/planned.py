"""What a truth's manifest plans: its files and the arrays of labels; they are checked without reading a whole one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError, safe_open

from ...datasets.truth import Assets
from ...errors import CorruptFile, brief
from ...leaderboard.rows.strict import Number
from ...store import of_disk, reading
from ..unpacking import Listed
from .subsets import ROLES

PIECE = 2**20  # numbers of an array that are in memory at once
MOST = 10_000  # replicates, subsets and models: as many files as an archive may hold
FLOATS = {"F64": np.float64, "F32": np.float32, "F16": np.float16}
WHOLE = ("BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64")
Few = Annotated[int, Field(ge=0, le=MOST)]
Kind = tuple[str, tuple[int, ...]]  # of an array: its numbers, and how its shape begins


class _Typed(BaseModel):
    model_config = ConfigDict(strict=True)


class _Query(_Typed):
    id: str
    kind: str
    role: str


class _Plan(_Typed):
    report: Few
    open: Few
    report_replicates: Few
    open_replicates: Few
    full: Few
    bins: Number
    regenerated: bool = True


class _Groups(_Typed):
    names: list[str]


class Stated(_Typed):
    """The types of what commands read of a manifest, of which more is known only to its task."""

    n_train: Number
    dataset: dict[str, Any]
    recipe: dict[str, Any]
    checkpoints: list[int]
    queries: list[_Query]
    files: dict[str, Listed]
    provenance: dict[str, Any]
    truth_plan: _Plan
    groups: _Groups | None = None


def planned(stated: Stated, schema: int) -> dict[str, dict[str, Kind]]:
    """Return the arrays of each file that a truth of this plan has; of problem and weights only those of groups."""
    of_groups = {"groups": ("I64", (stated.n_train,))} if stated.groups else {}
    return {"problem.safetensors": of_groups, **(_roles(stated) if schema == 1 else _parts(stated))}


def _roles(stated: Stated) -> dict[str, dict[str, Kind]]:
    """Return those of schema version 1: a file for each role."""
    return {
        f"truth-{role}.safetensors": {
            "masks": _masks(stated, subsets),
            "outputs": ("F32", (replicates, subsets, *_cells(stated))),
            "full": ("F32", (stated.truth_plan.full, *_cells(stated))),
        }
        for role, subsets, replicates in _subsets(stated.truth_plan)
    }


def _parts(stated: Stated) -> dict[str, dict[str, Kind]]:
    """Return those of later versions: a file for each replicate."""
    plan, found = stated.truth_plan, dict[str, dict[str, Kind]]()
    kinds = ("weights", "raw") if stated.recipe.get("keep_raw") else ("weights",)
    found |= {f"{kind}-{step}.safetensors": {} for kind in kinds for step in stated.checkpoints}
    models = {"full": plan.full}
    for role, subsets, replicates in _subsets(plan):
        found[f"truth-{role}.safetensors"] = {"masks": _masks(stated, subsets)}
        models |= {f"{role}-{r}": subsets for r in range(replicates)}
    if stated.groups:  # how often is the task's to say: as often as there are files
        replicates = sum(name.startswith("truth-groups-") for name in stated.files)
        models |= {f"groups-{r}": len(stated.groups.names) for r in range(max(1, replicates))}
    generated = sum(query.kind == "generated" for query in stated.queries)
    for name, count in models.items():
        if count:
            found[f"truth-{name}.safetensors"] = {"outputs": ("F32", (count, *_cells(stated)))}
        if count and plan.regenerated:
            found[f"regenerated-{name}.safetensors"] = {"images": ("F16", (count, generated))}
    return found


def _subsets(plan: _Plan) -> Iterator[tuple[str, int, int]]:
    for role in ROLES:
        yield role, getattr(plan, role), getattr(plan, f"{role}_replicates")


def _masks(stated: Stated, subsets: int) -> Kind:
    return "U8", (subsets, -(-stated.n_train // 8))


def _cells(stated: Stated) -> tuple[int, int]:
    measured = sum(query.role != "control" for query in stated.queries)
    return measured, stated.truth_plan.bins


def check_arrays(assets: Assets, wanted: Mapping[str, Mapping[str, Kind]]) -> None:
    """Raise CorruptFile for a file without the arrays that it should have, and for numbers that are NaN or infinite.

    Files are read piece by piece: memory does not grow with them. Raises UserError where the disk does not give one.
    """
    for name, arrays in wanted.items():
        with reading(assets.store.path(name)):
            _check_file(assets, name, arrays)


def _check_file(assets: Assets, name: str, arrays: Mapping[str, Kind]) -> None:
    path = assets.store.path(name)
    try:
        found = _header(path)
    except ValueError as error:
        raise CorruptFile(f"{name} is not a safetensors file ({error}): build that truth again") from error
    exact = bool(arrays) and assets.schema > 1 and name != "problem.safetensors"
    for key in sorted(set(arrays) | (set(found) if exact else set())):
        if key not in found or key not in arrays or not _is_of(found[key], arrays[key]):
            raise CorruptFile(f"{name} has not the {brief(key)} that its truth plans: build that truth again")
    for key, entry in found.items():
        if not _finite(path, entry):
            raise CorruptFile(f"{name} has {brief(key)} that is NaN or infinite: build that truth again")


def _is_of(entry: Mapping[str, Any], kind: Kind) -> bool:
    dtype, shape = kind
    return entry["dtype"] == dtype and tuple(entry["shape"][: len(shape)]) == shape


def _header(path: Path) -> dict[str, dict[str, Any]]:
    """Return type, shape and bytes (``data_offsets``, from the file's start) of each array of a safetensors file.

    Raises ValueError for other files, and for numbers that NumPy lacks.
    """
    try:
        with safe_open(path, "np"):  # checks the header, and that the arrays fill the file
            pass
    except (SafetensorError, OSError) as error:
        if of_disk(error):
            raise
        raise ValueError(brief(str(error))) from error
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        found = {key: entry for key, entry in json.loads(file.read(size)).items() if key != "__metadata__"}
    for key, entry in found.items():
        if entry["dtype"] not in (*FLOATS, *WHOLE):
            raise ValueError(f"{brief(key)} is of {entry['dtype']}")
        entry["data_offsets"] = [8 + size + offset for offset in entry["data_offsets"]]
    return found


def _finite(path: Path, entry: Mapping[str, Any]) -> bool:
    if entry["dtype"] not in FLOATS:
        return True
    kind = np.dtype(FLOATS[entry["dtype"]]).newbyteorder("<")
    start, stop = entry["data_offsets"]
    pieces = range(start, stop, PIECE * kind.itemsize)
    counts = (min(PIECE, (stop - at) // kind.itemsize) for at in pieces)
    return all(np.isfinite(np.fromfile(path, kind, n, offset=at)).all() for at, n in zip(pieces, counts, strict=True))
