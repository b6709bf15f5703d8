"""ArtBench-10: 60,000 artworks in ten styles, at 64x64 pixels by style, as MUCS trains on them."""

from __future__ import annotations

from pathlib import Path

from .. import hub
from ..base import UNPINNED, Card, ImageDataset
from ..files import Rows, class_folders, file_rows

CARD = Card(
    name="artbench10",
    title="ArtBench-10, training part and test part, at 64x64 pixels, by style",
    source="https://github.com/liaopeiyuan/artbench, 256x256 as folders with split; Liao et al., arXiv 2206.11404",
    licence="fair use, as its authors say: for research",
    revision="unpinned",
    transform="shorter side resized to 64 (bilinear), middle cut out, uint8 mapped to [-1, 1]",
    items=60_000,
    heldout=10_000,
    shape=(3, 64, 64),
    cond={"class_labels": ()},
    columns=("split", "style", "file"),
    files="the folder artbench-10-imagefolder-split with train/<style>/ and test/<style>/",
    download="not stated by its authors",
)
STYLES = (
    "art_nouveau",
    "baroque",
    "expressionism",
    "impressionism",
    "post_impressionism",
    "realism",
    "renaissance",
    "romanticism",
    "surrealism",
    "ukiyo_e",
)


def rows(folder: Path, split: str) -> Rows:
    """Return the pictures of a part, their styles numbered by name."""
    inside = folder / "artbench-10-imagefolder-split"
    root = (inside if inside.is_dir() else folder) / split
    return file_rows(*class_folders(root, STYLES), str(root))


SOURCE = hub.Source(
    "",
    UNPINNED,
    "train",
    "",
    "",
    (64, 64),
    counts=(50_000, 10_000),
    classes=len(STYLES),
    held="test",
    resized=True,
    layout=rows,
)


def load() -> ImageDataset:
    """Return the images [60000, 3, 64, 64] that were fetched, on disk, with their style as ``class_labels``."""
    return hub.opened(CARD)


def fetch(path: Path | None = None, on_item: hub.OnItem = hub.ignore) -> ImageDataset:
    """Store the images from the authors' folders at ``path``, and return them."""
    return hub.fetch(CARD, SOURCE, path, "class_labels", on_item)
