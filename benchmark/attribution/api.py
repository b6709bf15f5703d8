"""The call ``tdabench.attribute``: which training images made a picture, as scores by method."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...datasets.own.sources import Images
from ..run.results import Results
from .answer import Answer, answer
from .budget import fitted
from .cells import Cells, check, default_results, sized
from .problem import make
from .request import METHODS, RATE, Request
from .self_check import checked
from .shortlist import ran


def attribute(
    model: Any,
    images: Images,
    queries: Images | None = None,
    methods: Sequence[str] = METHODS,
    *,
    generate: int = 0,
    seed: int = 0,
    prompts: Sequence[str] = (),
    labels: Sequence[str] = (),
    guidance: float | None = None,
    lora: Path | str | None = None,
    preset: str = "",
    top: int = 20,
    seeds: Sequence[int] = (0,),
    learning_rate: float = RATE,
    minutes: float = 0.0,
    memory: float = 0.0,
    self_check: bool = False,
    held_out: Images | None = None,
    shortlist: int | None = None,
    device: str = "cpu",
    jobs: int = 0,
    micro_batch: int = 0,
    precision: str = "float32",
    results: Path | str | None = None,
) -> Answer:
    """Return which training images made pictures, by every method that can say so; see ``Answer`` for what that holds.

    model: a folder that diffusers saved, an id on the hub, or a pipeline object; images, queries: a folder, a folder
    that ``save_to_disk`` wrote, or a ``datasets.Dataset``; the other arguments are those of ``tdabench attribute``
    (``Request``). Methods run in processes of their own, so a script calls this under ``if __name__ == "__main__":``;
    what was computed is kept, and the same call again computes nothing. Raises UserError for what cannot be answered.
    """
    request = Request(
        model,
        images,
        queries,
        generate,
        seed,
        tuple(prompts),
        tuple(labels),
        guidance,
        Path(lora) if lora is not None else None,
        tuple(methods),
        preset,
        top,
        tuple(seeds),
        learning_rate,
        minutes,
        memory,
        self_check,
        held_out,
        shortlist,
    )
    options = check(request, device, jobs, micro_batch, precision)
    made = make(request, options.device)
    cells = fitted(Cells(made, sized(options, made), Results(results or default_results())))
    return answer(cells, ran(cells, cells.runner.run), checked(cells) if self_check else None)
