"""ArtBench-5 of D-TRAK (arXiv 2311.00500): 12,500 artworks of five styles, by a prompt that names the style."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from .. import hub
from ..base import UNPINNED, Card, ImageDataset
from ..subsampling import drawn_artworks

CARD = Card(
    name="artbench5",
    title="ArtBench-5: the 12,500 works of five styles that D-TRAK draws, and 1,000 held-out ones",
    source="https://github.com/liaopeiyuan/artbench, 256x256; Liao et al., arXiv 2206.11404",
    licence="fair use, as its authors say: for research",
    revision="unpinned",
    transform="shorter side resized to 256 (bilinear), middle cut out, uint8 mapped to [-1, 1]",
    items=13_500,
    heldout=1_000,
    shape=(3, 256, 256),
    cond={"encoder_hidden_states": (77, 768)},
    columns=("name", "label", "split"),
    files="a folder with ArtBench-10.csv and, in artbench-10-imagefolder/<style>/ (or -split/<part>/<style>/), the "
    "pictures; --text: the folder of the pipeline lambdalabs/miniSD-diffusers, of which D-TRAK names no commit",
    download="not stated by its authors",
)
TEXT = "tokens"  # what a caption becomes: an embedding of each token
STYLES = ("baroque", "post_impressionism", "renaissance", "romanticism", "ukiyo_e")
ROWS = partial(drawn_artworks, styles=STYLES, counts={"train": 12_500, "test": 1_000})
SOURCE = hub.Source(
    "", UNPINNED, "train", "", "", (256, 256), counts=(12_500, 1_000), held="test", resized=True, layout=ROWS
)


def load() -> ImageDataset:
    """Return the images [13500, 3, 256, 256] that were fetched, on disk, and their prompts' embeddings [77, 768]."""
    return hub.opened(CARD)


def fetch(path: Path | None, on_item: hub.OnItem, encode: hub.Encode) -> ImageDataset:
    """Store the images from the authors' files at ``path``, and return them."""
    return hub.fetch(CARD, SOURCE, path, on_item=on_item, encode=encode)
