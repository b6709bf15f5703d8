"""A task's truth as one archive: a tar with its manifest first; reading one trusts nothing and has declared limits."""

from __future__ import annotations

import io
import re
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from ...datasets.truth import Assets
from ...errors import CorruptFile, UserError, brief
from ...leaderboard.rows.strict import Number, first_problem
from ...plugins import NAME
from ...store import FolderStore, file_hash
from ..unpacking import Contents, Listed, unpack

MANIFEST = "manifest.json"
MEND = "export it again with `tdabench truth export`"
CONTENTS = Contents(
    of="a truth",
    name=re.compile(rf"{NAME.pattern}@[0-9]+/({re.escape(MANIFEST)}|[a-z][a-z0-9-]*\.safetensors)"),
    limits={MANIFEST: 2**26, ".safetensors": 2**34},
    most_files=10_000,
    most_bytes=2**36,
    mend=MEND,
    most_ratio=100,  # weights and losses hardly compress
)


class _Query(BaseModel):
    id: str
    kind: str
    role: str


class _Manifest(BaseModel):
    """The types of what commands read of a manifest, of which more is known only to its task."""

    model_config = ConfigDict(strict=True)
    n_train: Number
    dataset: dict[str, Any]
    recipe: dict[str, Any]
    checkpoints: list[int]
    queries: list[_Query]
    files: dict[str, Listed]
    provenance: dict[str, Any]


def write_archive(archive: Path, assets: Assets) -> int:
    """Write a truth as an uncompressed tar, whole or not at all, and return its bytes."""
    with FolderStore(archive.parent).writing(archive.name) as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
            for name in (MANIFEST, *assets.manifest["files"]):
                data = assets.store.get(name)
                member = tarfile.TarInfo(f"{assets.label}/{name}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
        return file.tell()


def read_archive(archive: Path, folder: Path) -> Assets:
    """Unpack an archive into an empty folder and return the truth in it.

    Raises UserError for what is no archive of one truth, CorruptFile where its manifest is of a schema that is not
    read here, lacks a field or was edited, and where its files are not those that it lists, or hold NaN or infinity.
    """
    names = unpack(archive, folder, CONTENTS)
    labels = {name.partition("/")[0] for name in names}
    if len(labels) != 1 or f"{min(labels)}/{MANIFEST}" not in names:
        raise UserError(f"{archive} is no exported truth: it should hold one task's {MANIFEST} and files; {MEND}")
    label = labels.pop()
    try:
        assets = Assets(folder / label)
        _check_files(assets, {name.partition("/")[2] for name in names} - {MANIFEST})
        _check_labels(assets)
    except UserError as error:
        raise CorruptFile(f"{archive}: {str(error).replace(f'{folder}/', '')}") from error
    if assets.label != label:
        raise CorruptFile(f"{archive} is named after {label}, but holds {brief(assets.label)}: {MEND}")
    return assets


def _check_files(assets: Assets, there: set[str]) -> None:
    """Raise CorruptFile unless the files are those that the manifest lists, byte for byte."""
    try:
        listed = _Manifest.model_validate(assets.manifest).files
    except ValidationError as error:
        raise CorruptFile(f"its {MANIFEST} is broken ({first_problem(error)}): {MEND}") from error
    if odd := sorted(set(listed) ^ there):
        raise CorruptFile(f"it does not hold just what its {MANIFEST} lists ({brief(', '.join(odd))}): {MEND}")
    for name, entry in listed.items():
        path = assets.store.path(name)
        if path.stat().st_size != entry.bytes or file_hash(path) != entry.sha256:
            raise CorruptFile(f"{name} does not match its {MANIFEST}: {MEND}")


def _check_labels(assets: Assets) -> None:
    """Raise CorruptFile where an array holds NaN or infinity, or losses are not of the subsets and queries."""
    for name in assets.manifest["files"]:
        for key, array in assets.arrays(name).items():
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise CorruptFile(f"{name} has {brief(key)} that is NaN or infinite: build that truth again")
    for role in ("open", "report"):
        try:
            truth = assets.truth(role) if assets.has(role) else None
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise CorruptFile(f"its {role} labels cannot be read ({brief(repr(error))}): {MEND}") from error
        if truth and truth.outputs.shape[1:3] != (len(truth.masks), len(truth.query_ids)):
            raise CorruptFile(f"its {role} labels are not of its subsets and queries: build that truth again")
