"""Sheets of images, enlarged so that small ones can be looked at."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from ..store import FolderStore

CELL = 48


def sheet(images: Tensor, columns: int) -> Tensor:
    """Return a grey or colour sheet [H, W, 3] uint8 of images [n, C, H, W] in [-1, 1], ``columns`` to a row."""
    levels = ((images.clamp(-1, 1) + 1) * 127.5).round().expand(-1, 3, -1, -1)
    scale = max(1, CELL // images.shape[-1])
    cells = pad(interpolate(levels, scale_factor=scale, mode="nearest"), (2, 2, 2, 2), value=160.0)
    missing = -len(cells) % columns
    cells = torch.cat([cells, cells.new_full((missing, *cells.shape[1:]), 160.0)])
    rows = [torch.cat(list(row), dim=2) for row in cells.split(columns)]
    return torch.cat(rows, dim=1).permute(1, 2, 0).byte()


def write_png(path: Path, picture: Tensor) -> None:
    """Write a picture [H, W, 3] uint8 as PNG."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture.numpy()).save(buffer, format="PNG", optimize=True)
    FolderStore(path.parent).put(path.name, buffer.getvalue())


def labelled(picture: Tensor, text: str) -> Tensor:
    """Return a picture [H, W, 3] under a line of text."""
    from PIL import Image, ImageDraw

    band = Image.new("RGB", (picture.shape[1], 16), "white")
    ImageDraw.Draw(band).text((2, 2), text, fill="black")
    return torch.cat([torch.from_numpy(np.array(band)), picture])
