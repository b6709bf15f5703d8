"""What D-TRAK draws to train on and to hold out (Zheng et al., arXiv 2311.00500): scikit-learn's split with seed 42."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError
from .files import Rows, file_rows, read_lines

PROMPT = "a {} painting"
FOLDER = "artbench-10-imagefolder"
PLACES = (f"{FOLDER}/{{label}}", f"{FOLDER}-split/{{split}}/{{label}}", "{split}/{label}", "{label}")


def drawn(count: int, size: int, classes: Sequence[Any] | None = None) -> list[int]:
    """Return ``size`` of the numbers 0..count-1 in the order drawn, stratified by classes where there are any."""
    from sklearn.model_selection import train_test_split

    if size == count:  # which the split refuses
        return list(range(count))
    return list(train_test_split(range(count), train_size=size, random_state=42, stratify=classes)[0])


def drawn_artworks(folder: Path, split: str, styles: Sequence[str], counts: Mapping[str, int]) -> Rows:
    """Return the pictures of a part that D-TRAK draws of some of ArtBench's styles, by the rows of ArtBench-10.csv.

    Raises UserError for a folder without that file, or without a picture that it names.
    """
    path = folder / "ArtBench-10.csv"
    found = [row for row in _listed(path) if row["label"] in styles and row["split"] == split and row["name"]]
    labels = [styles.index(row["label"]) for row in found]
    try:
        chosen = drawn(len(found), counts[split], labels)
    except ValueError as error:  # fewer than are drawn, or too few of a style
        what = f"{len(found):,} pictures of {split} and {', '.join(styles)}"
        raise UserError(f"{path} names {what}: get the whole file") from error
    paths = [_picture(folder, found[i]) for i in chosen]
    captions = [PROMPT.format(found[i]["label"].replace("_", " ")) for i in chosen]
    return file_rows(paths, [labels[i] for i in chosen], str(folder), captions)


def _listed(path: Path) -> list[dict[str, str]]:
    try:
        table = csv.DictReader(read_lines(path))
        missing = [name for name in ("name", "label", "split") if name not in (table.fieldnames or ())]
        if missing:
            raise UserError(f"{path} has no column {' and '.join(missing)}: get it again")
        return list(table)
    except csv.Error as error:
        raise UserError(f"{path} is no table ({error}): get it again") from error


def _picture(folder: Path, row: Mapping[str, str]) -> Path:
    paths = [folder / place.format(label=row["label"], split=row["split"]) / row["name"] for place in PLACES]
    return next((path for path in paths if path.is_file()), paths[0])
