"""What people get: a folder with a grid, a page, scores, a table and a report, written whole or not at all."""

from __future__ import annotations

import csv
import io
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.numpy import save as save_arrays

from ....errors import UserError
from ....seeds import digest
from ....store import LONG_CLAIM_S, PART, FolderStore, clear_abandoned, home, recovered, remove_tree, take_place
from ...run.plan import command_line
from ...sheets import write_png
from ...truth.build import provenance
from ..answer import Answer
from ..found import found
from ..request import Request
from .page import page
from .thumbnails import grid, picture

REPORT, PAGE, GRID, SCORES, TABLE = "report.json", "index.html", "grid.png", "scores.safetensors", "top.csv"
SIDE, SHOWN, ROWS = 72, 8, 20  # pixels of an image of the grid; images a method, and pictures, that it holds at most


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Let one command at a time answer into a folder, which is there again if a kill came while it was replaced.

    Raises UserError where another one does.
    """
    store, key = FolderStore(home() / "attribution" / "outputs"), digest(str(_place(out)))
    with store.claim(key, LONG_CLAIM_S) as held:
        if not held:
            who = store.holder(key) or "it has just ended"
            raise UserError(
                f"another command is answering into {out} ({who}): wait for it, or name another folder with -o"
            )
        recovered(_place(out))
        yield


def _place(out: Path) -> Path:
    """Return the folder that a name leads to, through links."""
    return Path(os.path.realpath(out))


def check_out(out: Path, request: Request) -> None:
    """Raise UserError for a folder that holds anything but the answer to the same request, or that cannot be made."""
    above = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists())
    if above != out.absolute() and not (above.is_dir() and os.access(above, os.W_OK)):
        raise UserError(f"{out} cannot be made in {above}: name another folder with -o")
    if Path.cwd().is_relative_to(_place(out)):
        raise UserError(f"{out} is the folder that this command runs in, or holds it: name another folder with -o")
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not out.is_dir():
        raise UserError(f"{out} is a file: name a folder with -o")
    if _asked(out) != request.hash:
        what = "the answer to another request" if (out / REPORT).is_file() else "other things"
        raise UserError(f"{out} holds {what}: name another folder with -o, or remove it")


def _asked(out: Path) -> str | None:
    try:
        return FolderStore(out).get_json(REPORT)["request_hash"]
    except (UserError, FileNotFoundError, KeyError, TypeError):
        return None


def write(answer: Answer, out: Path) -> None:
    """Write an answer into a folder, instead of an earlier one; raises UserError where that cannot be."""
    check_out(out, answer.made.request)
    about, place = report(answer), _place(out)
    part = FolderStore(place.with_name(f".{place.name}.{uuid.uuid4().hex}{PART}"))
    clear_abandoned(place)
    try:
        part.put(PAGE, page(answer, about).encode())
        part.put(SCORES, _scores(answer))
        part.put(TABLE, _table(answer).encode())
        write_png(part.path(GRID), _grid(answer))
        part.put_json(REPORT, about)
        take_place(part.root, place)
    finally:
        remove_tree(part.root)


def report(answer: Answer) -> dict[str, Any]:
    """Return all but the scores, as JSON values: what was asked, what was found, and what to think of it."""
    made = answer.made
    return {
        "request": made.request.to_json(),
        "request_hash": made.request.hash,
        "command": command_line(),
        "found": found(made),
        "notes": list(answer.notes),
        "problem_sha256": made.assets.problem_sha256,
        "provenance": provenance(),
        "queries": [
            {"name": name, "copies": [{**asdict(copy), "file": answer.items[copy.item]} for copy in copies]}
            for name, copies in zip(answer.queries, answer.copies, strict=True)
        ],
        "skipped": {**made.own.skipped, **made.skipped},
        "params": {entry: dict(values) for entry, values in answer.params.items()},
        "costs": dict(answer.costs),
        "missing": dict(answer.missing),
        "agreement": [asdict(pair) for pair in answer.agreements],
        "self_check": answer.self_check and answer.self_check.to_json(),
        "items": list(answer.items),
    }


def _scores(answer: Answer) -> bytes:
    """Return scores [Q, N] by entry, and their spread as ``entry/spread``; the report names rows and columns."""
    spread = {f"{entry}/spread": values for entry, values in answer.spread.items()}
    return save_arrays({**{entry: values.copy() for entry, values in answer.scores.items()}, **spread})


def _table(answer: Answer) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["picture", "method", "rank", "file", "score", "spread", "near_copy"])
    writer.writerows(_lines(answer))
    return text.getvalue()


def _lines(answer: Answer) -> Iterator[list[Any]]:
    for query, name in enumerate(answer.queries):
        near = {copy.item: "same" if copy.same else "near" for copy in answer.copies[query]}
        for entry in answer.scores:
            for rank, top in enumerate(answer.top(entry, query), 1):
                spread = "" if top.spread is None else f"{top.spread:.6g}"
                row = [name, entry, rank, answer.items[top.item], f"{top.score:.6g}", spread]
                yield [*row, near.get(top.item, "")]


def _grid(answer: Answer) -> torch.Tensor:
    """Return for each picture a row of what every method puts on top, with scores, uint8 [H, W, 3]."""
    count, gap = min(SHOWN, answer.made.request.top), [None]
    heads, rows = ["picture"], []
    for entry in answer.scores:
        heads += ["", entry, *[""] * (count - 1)]
    for query, name in enumerate(answer.queries[:ROWS]):
        row: list[tuple[str, Any] | None] = [(name, picture(answer.pictures[query], SIDE))]
        for entry in answer.scores:
            tops = answer.top(entry, query)[:count]
            images = answer.pixels([top.item for top in tops])
            shown = [(f"{top.score:#.3g}", picture(image, SIDE)) for top, image in zip(tops, images, strict=True)]
            row += [*gap, *shown, *[None] * (count - len(tops))]
        rows.append(row)
    return torch.from_numpy(grid(heads, rows, SIDE))
