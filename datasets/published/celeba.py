"""CelebA as D-TRAK has it (Zheng et al., arXiv 2311.00500): 5,000 faces of 64x64 pixels, and 1,000 held-out ones."""

from __future__ import annotations

from pathlib import Path

from ...errors import UserError
from .. import hub
from ..base import UNPINNED, Card, ImageDataset
from ..files import Rows, file_rows, read_lines
from ..subsampling import drawn

CARD = Card(
    name="celeba",
    title="CelebA: the 5,000 training faces that D-TRAK draws, and 1,000 of the validation part",
    source="https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html; Liu et al., arXiv 1411.7766",
    licence="for non-commercial research, no redistribution",
    revision="unpinned",
    transform="middle of 140x140 cut out and resized to 64x64 (bilinear), uint8 mapped to [-1, 1]",
    items=6_000,
    heldout=1_000,
    shape=(3, 64, 64),
    columns=("file name", "part"),
    files="a folder with img_align_celeba/ and list_eval_partition.txt, as its authors' archive unpacks",
    download="1.4 GB",
)
COUNTS = {"train": 5_000, "valid": 1_000}
CODES = {"train": "0", "valid": "1"}  # of list_eval_partition.txt


def rows(folder: Path, split: str) -> Rows:
    """Return the pictures of a part that D-TRAK draws of it: by their numbers, seed 42, not stratified."""
    lines = [line.split() for line in read_lines(folder / "list_eval_partition.txt")]
    names = [words[0] for words in lines if words[1:] == [CODES[split]]]
    if len(names) < COUNTS[split]:
        found = f"{len(names):,} pictures of its part {split!r}, and {COUNTS[split]:,} are drawn"
        raise UserError(f"{folder / 'list_eval_partition.txt'} names {found}: get the whole file")
    paths = [folder / "img_align_celeba" / names[i] for i in drawn(len(names), COUNTS[split])]
    return file_rows(paths, [0] * len(paths), str(folder))


SOURCE = hub.Source(
    "", UNPINNED, "train", "", "", (64, 64), counts=(5_000, 1_000), held="valid", resized=True, crop=140, layout=rows
)


def load() -> ImageDataset:
    """Return the images [6000, 3, 64, 64] that were fetched, on disk, all of one class."""
    return hub.opened(CARD)


def fetch(path: Path | None = None, on_item: hub.OnItem = hub.ignore) -> ImageDataset:
    """Store the images from the authors' files at ``path``, and return them."""
    return hub.fetch(CARD, SOURCE, path, on_item=on_item)
