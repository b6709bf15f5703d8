"""The pictures of a task's queries and top items in one small image."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ....leaderboard.page.facts import Sprite
from ....leaderboard.page.queries import TOP, shown_items
from ....leaderboard.rows.row import Row
from ....models.problem import read_problem

SIDES = (
    64,
    48,
    32,
    24,
    16,
)  # pixels of a tile: the largest whose image is small enough, and no larger than pictures are
SMALL = 800_000  # bytes of an image, so that a page of several tasks stays below 3 MB
COLOURS = 128


def sprite_of(folder: Path, rows: Sequence[Row], plugins: tuple[Path, ...]) -> Sprite:
    """Return the pictures of a task's test queries and of all items that rows put on top of them."""
    problem = read_problem(folder, plugins)
    queries = problem.queries.where("test")
    items = _items(rows, len(problem.train))
    pictures = [queries.pixels, problem.train.pixels(torch.tensor(items, dtype=torch.long))]
    side = pictures[0].shape[-1]
    for tile in [size for size in SIDES if size < side] or [side]:
        tiles = torch.cat([_tiles(part, min(tile, side)) for part in pictures if len(part)])
        png, columns = _png(tiles)
        if len(png) <= SMALL:
            break
    places = {item: len(queries) + index for index, item in enumerate(items)}
    return Sprite(png, tiles.shape[1], columns, {query: i for i, query in enumerate(queries.ids)}, places)


def _items(rows: Sequence[Row], n_train: int) -> list[int]:
    tops = [row.metrics.top.ids for row in rows if row.key.query_set == "test" and row.metrics and row.metrics.top]
    found = shown_items([[ids[:TOP] if ids else None for ids in top] for top in tops])
    return [item for item in found if 0 <= item < n_train]


def _tiles(pictures: Tensor, side: int) -> Tensor:
    """Return pictures [n, C, H, W] in [-1, 1] as tiles [n, side, side, 3] uint8."""
    levels = ((pictures.float().clamp(-1, 1) + 1) * 127.5).expand(-1, 3, -1, -1)
    if levels.shape[-2:] != (side, side):
        levels = interpolate(levels, size=(side, side), mode="area")
    return levels.round().byte().permute(0, 2, 3, 1)


def _png(tiles: Tensor) -> tuple[bytes, int]:
    """Return tiles as one image with few colours, and how many stand in a row."""
    from PIL import Image

    columns = math.ceil(math.sqrt(len(tiles)))
    missing = -len(tiles) % columns
    tiles = torch.cat([tiles, tiles.new_zeros(missing, *tiles.shape[1:])])
    whole = torch.cat([torch.cat(list(row), dim=1) for row in tiles.split(columns)])
    image = Image.fromarray(whole.numpy()).quantize(COLOURS)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue(), columns
