"""Images as small pictures: enlarged where they are tiny, reduced where they are large."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

SMALL = 64  # pixels: up to here an image is kept as it is, since blurring it would hide what it is
QUALITY = 82
BAND, GAP = 14, 6  # pixels of a line of text, and between pictures


def picture(image: Tensor, side: int) -> Any:
    """Return an image [C, H, W] in [-1, 1] as a picture whose longer side is about ``side`` pixels."""
    levels = ((image.clamp(-1, 1) + 1) * 127.5).round().byte()
    found = Image.fromarray(levels.expand(3, -1, -1).movedim(0, 2).contiguous().numpy())
    longest = max(found.size)
    if longest <= side:
        scale = max(1, side // longest)
        return found.resize((found.width * scale, found.height * scale), Image.Resampling.NEAREST)
    size = [max(1, round(edge * side / longest)) for edge in found.size]
    return found.resize((size[0], size[1]), Image.Resampling.LANCZOS)


def data_uri(image: Tensor, side: int) -> str:
    """Return an image [C, H, W] in [-1, 1] as a data URI: whole where it is small, reduced to ``side`` otherwise."""
    buffer, longest = io.BytesIO(), max(image.shape[1:])
    if longest <= min(side, SMALL):
        picture(image, longest).save(buffer, format="PNG", optimize=True)
        return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    picture(image, min(side, longest)).save(buffer, format="JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def grid(heads: Sequence[str], rows: Sequence[Sequence[tuple[str, Any] | None]], side: int) -> np.ndarray:
    """Return rows of (text, picture) as one picture [H, W, 3] uint8: each text under its picture, heads on top.

    Equally many in all rows, None where there is nothing; an empty head goes on with what the one before it is of.
    """
    sheet = Image.new("RGB", (len(heads) * (side + GAP) + GAP, BAND + len(rows) * (side + BAND + GAP) + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for x, head in enumerate(heads):
        draw.text((GAP + x * (side + GAP), 2), head, fill="black")
    for y, row in enumerate(rows):
        for x, cell in enumerate(row):
            left, top = GAP + x * (side + GAP), BAND + GAP + y * (side + BAND + GAP)
            if cell is not None:
                text, shown = cell
                sheet.paste(shown, (left + (side - shown.width) // 2, top + (side - shown.height) // 2))
                draw.text((left, top + side + 1), text[: side // 6], fill="black")
    return np.array(sheet)
