"""MS COCO 2017 with captions, at 64x64 pixels, as MUCS trains on them: by the vector of a caption."""

from __future__ import annotations

import json
from pathlib import Path

from ...errors import UserError, shown
from .. import hub
from ..base import UNPINNED, Card, ImageDataset
from ..files import Rows, file_rows, read_bytes

CARD = Card(
    name="coco",
    title="MS COCO 2017, training and validation part, at 64x64 pixels, by the vector of each picture's first caption",
    source="https://cocodataset.org, 2017 train and val images and captions; Lin et al., arXiv 1405.0312",
    licence="annotations CC BY 4.0; the pictures' own, by their Flickr pages",
    revision="unpinned",
    transform="shorter side resized to 64 (bilinear), middle cut out, uint8 mapped to [-1, 1]",
    items=123_287,
    heldout=5_000,
    shape=(3, 64, 64),
    cond={"encoder_hidden_states": (1, 768)},
    columns=("images.file_name", "annotations.caption"),
    files="a folder with train2017/, val2017/ and annotations/captions_train2017.json and captions_val2017.json; "
    "--text: a folder with tokenizer/ and text_encoder/, both copies of laion/CLIP-ViT-L-14-laion2B-s32B-b82K at "
    "1627032197142fbe2a7cfec626f4ced3ae60d07a (OpenAI's ViT-L/14 has the same shape and makes other vectors)",
    download="19 GB",
)
TEXT = "vector"  # what a caption becomes: its one vector, projected and of length 1


def rows(folder: Path, split: str) -> Rows:
    """Return the pictures of a part with the caption of lowest id of each."""
    path = folder / "annotations" / f"captions_{split}2017.json"
    try:
        found = json.loads(read_bytes(path))
        names = {image["id"]: image["file_name"] for image in found["images"]}
        captions = {one["image_id"]: one["caption"] for one in sorted(found["annotations"], key=lambda a: -a["id"])}
        pairs = [(name, captions[image]) for image, name in sorted(names.items())]
        if not all(isinstance(text, str) for pair in pairs for text in pair):
            raise TypeError("a file name or caption is no text")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path} is no file of captions as COCO has them ({shown(error)}): get it again") from error
    paths = [folder / f"{split}2017" / name for name, _ in pairs]
    return file_rows(paths, [0] * len(paths), str(folder), [caption for _, caption in pairs])


SOURCE = hub.Source(
    "", UNPINNED, "train", "", "", (64, 64), counts=(118_287, 5_000), held="val", resized=True, layout=rows
)


def load() -> ImageDataset:
    """Return the images [123287, 3, 64, 64] that were fetched, on disk, and their captions' vectors [1, 768]."""
    return hub.opened(CARD)


def fetch(path: Path | None, on_item: hub.OnItem, encode: hub.Encode) -> ImageDataset:
    """Store the images from the authors' files at ``path``, and return them."""
    return hub.fetch(CARD, SOURCE, path, on_item=on_item, encode=encode)
