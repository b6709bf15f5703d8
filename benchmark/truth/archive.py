"""A task's truth as one archive: a tar with its manifest first; reading one trusts nothing and has declared limits."""

from __future__ import annotations

import io
import re
import tarfile
from pathlib import Path

from pydantic import ValidationError

from ...datasets.truth import Assets
from ...errors import CorruptFile, UserError, brief
from ...leaderboard.rows.strict import first_problem
from ...plugins import NAME
from ...store import FolderStore, file_hash, of_disk
from ..unpacking import Contents, unpack
from .planned import Stated, check_arrays, planned

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
    read here, lacks a field or was edited, and where its files are not those that it lists and plans, have other labels
    than planned, or hold NaN or infinity. No file is held in memory as a whole.
    """
    names = unpack(archive, folder, CONTENTS)
    labels = {name.partition("/")[0] for name in names}
    if len(labels) != 1 or f"{min(labels)}/{MANIFEST}" not in names:
        raise UserError(f"{archive} is no exported truth: it should hold one task's {MANIFEST} and files; {MEND}")
    label = labels.pop()
    try:
        assets = Assets(folder / label)
        _check_files(assets, {name.partition("/")[2] for name in names} - {MANIFEST})
    except UserError as error:
        if of_disk(error.__cause__):
            raise  # what was unpacked cannot be read, of which the archive is innocent
        raise CorruptFile(f"{archive}: {str(error).replace(f'{folder}/', '')}") from error
    if assets.label != label:
        raise CorruptFile(f"{archive} is named after {label}, but holds {brief(assets.label)}: {MEND}")
    return assets


def _check_files(assets: Assets, there: set[str]) -> None:
    """Raise CorruptFile unless the files are those that the manifest lists and plans, byte for byte."""
    try:
        stated = Stated.model_validate(assets.manifest)
    except ValidationError as error:
        raise CorruptFile(f"its {MANIFEST} is broken ({first_problem(error)}): {MEND}") from error
    if odd := sorted(set(stated.files) ^ there):
        raise CorruptFile(f"it does not hold just what its {MANIFEST} lists ({brief(', '.join(odd))}): {MEND}")
    wanted = planned(stated, assets.schema)
    if odd := sorted(set(wanted) ^ there):
        raise CorruptFile(f"it does not hold just what its {MANIFEST} plans ({brief(', '.join(odd))}): {MEND}")
    for name, entry in stated.files.items():
        path = assets.store.path(name)
        if path.stat().st_size != entry.bytes or file_hash(path) != entry.sha256:
            raise CorruptFile(f"{name} does not match its {MANIFEST}: {MEND}")
    check_arrays(assets, wanted)
