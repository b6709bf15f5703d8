"""An unpacked submission: its manifest, rows and scores, read without importing its code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from ...datasets.truth import arrays_in
from ...errors import CorruptFile, UserError, brief
from ...leaderboard.rows.row import Row, row_key
from ...methods.base import UNITS
from ...methods.registry import Listing, listings
from ..run.record import Record, scores_file
from ..sandbox.enclosure import keep_from_methods
from ..unpacking import unpack
from .archive import CONTENTS, MANIFEST
from .manifest import Manifest, read_manifest, read_submitted_row

SLICE = re.compile(r"slice-(\d{5})-(\d{5})\.safetensors")


@dataclass(frozen=True)
class Submission:
    """A submission unpacked in a folder: names of its files, and its manifest."""

    folder: Path
    names: tuple[str, ...]
    manifest: Manifest

    @property
    def adapter(self) -> Path:
        """The method's file."""
        return self.folder / "adapter" / self.manifest.adapter

    @cached_property
    def rows(self) -> list[Row]:
        """The rows; raises CorruptFile for one that is none, or that lies where another cell's belongs."""
        found = []
        for name in (name for name in self.names if name.startswith("rows/")):
            row = read_submitted_row(self.folder / name, name)
            if name != f"rows/{row_key(row.key)}":
                raise CorruptFile(f"{name} holds the row of another cell, {row_key(row.key)}: pack it again")
            found.append(row)
        return found

    @cached_property
    def listing(self) -> Listing:
        """The method as its file's literals describe it; raises UserError where it is not the one that is submitted."""
        path = self.adapter
        try:
            own = [listing for listing in listings((path,)).values() if listing.origin == str(path)]
        except (TypeError, RecursionError, MemoryError, SyntaxError) as error:
            raise UserError(f"adapter/{self.manifest.adapter} cannot be read ({brief(str(error))})") from error
        if [listing.name for listing in own] != [self.manifest.method]:
            found = ", ".join(listing.name for listing in own) or "no method"
            raise UserError(f"adapter/{self.manifest.adapter} registers {brief(found)}, not {self.manifest.method}")
        if not isinstance(own[0].query_kinds, tuple) or own[0].unit not in UNITS:
            raise UserError(f"adapter/{self.manifest.adapter}: query_kinds is a tuple, and unit one of {UNITS}")
        return own[0]

    def slices(self, row: Row) -> list[tuple[slice, Path]]:
        """Return the slices of a row's queries and where their scores lie, in order."""
        folder = f"{scores_folder(row)}/"
        found = [(SLICE.fullmatch(name.removeprefix(folder)), name) for name in self.names if name.startswith(folder)]
        bounds = [(slice(int(m[1]), int(m[2])), self.folder / name) for m, name in found if m is not None]
        return sorted(bounds, key=lambda one: one[0].start)

    def blocks(self, row: Row, ids: tuple[str, ...], width: int) -> Iterator[tuple[tuple[str, ...], np.ndarray]]:
        """Yield (query ids, scores [q, N]) slice by slice, where ``ids`` are all that the cell attributes."""
        for part, path in self.slices(row):
            yield ids[part], read_scores(path, (part.stop - part.start, width))


def opened(archive: Path, folder: Path) -> Submission:
    """Unpack an archive into an empty folder; raises UserError for one that is no submission.

    No method reads either from now on: its rerun would give the submitted scores.
    """
    keep_from_methods(archive, folder)
    names = unpack(archive, folder, CONTENTS)
    if MANIFEST not in names:
        raise UserError(f"{archive} holds no {MANIFEST}: pack it with `tdabench submit pack`")
    manifest = read_manifest(folder / MANIFEST)
    if f"adapter/{manifest.adapter}" not in names:
        raise UserError(f"{archive} holds no adapter/{brief(manifest.adapter)}, which {MANIFEST} names: pack it again")
    return Submission(folder, tuple(names), manifest)


def scores_folder(row: Row) -> str:
    """Return where the slices of a row's scores lie in an archive."""
    return f"scores/{row_key(row.key).removesuffix('.json')}"


def read_scores(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """Return the scores [q, N] float32 of a file; raises CorruptFile where it holds anything else."""
    try:
        arrays = arrays_in(path.read_bytes())
    except ValueError as error:
        raise CorruptFile(f"{path.name} is no safetensors file of numbers ({error}): pack again") from error
    scores = arrays.get("scores")
    if set(arrays) != {"scores"} or scores is None or scores.dtype != np.float32 or scores.shape != shape:
        found = ", ".join(f"{brief(name)} {a.dtype} {list(a.shape)}" for name, a in list(arrays.items())[:3])
        raise CorruptFile(f"{path.name} holds {found or 'nothing'} where scores float32 {list(shape)} belong")
    return scores


def stored_slices(record: Record) -> dict[str, bytes]:
    """Return a record's files of scores by name; raises CorruptFile where one is not what was stored."""
    return {scores_file(part): record.data(part) for part in record.parts()}
