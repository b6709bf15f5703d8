"""What is asked: whose model, which images, which pictures are to be explained, by which methods."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...datasets.own.sources import Images
from ...errors import UserError, shown
from ...seeds import digest

METHODS = ("pixel", "d-trak", "mucs")
PRESETS = {"pixel": "distance"}  # nothing in it was tuned on a task
PLACES = ("model", "images", "queries", "lora", "held_out")
MOST = 1e12  # of any unit: more is no machine's, and no number in the end
RATE = 1e-4  # of AdamW, as diffusers' training scripts have it where nobody says


@dataclass(frozen=True)
class Request:
    """One attribution.

    model: a folder that diffusers saved, an id on the hub, or a pipeline object; lora: a folder of adapters beside it;
    images: those that it was trained on; queries: pictures to explain, or ``generate`` of the model's own by ``seed``,
    under ``prompts`` or ``labels`` in turn (none: the conditions of training images drawn at random) and a scale of
    classifier-free ``guidance`` (None: the pipeline's own). methods: entries, ``preset`` where they name none (empty:
    what suits images of any size); top: how many images of each query and method are shown; seeds: of the methods' own
    randomness, over which scores are averaged; learning_rate: of AdamW, for methods that go on training a model whose
    training nobody knows. minutes, memory: what the methods may take, in GiB, to which their parameters are fitted (0:
    as they are, and whatever is free); self_check: whether to try the methods on copies of the model tuned on single
    images: of ``held_out``, which it never saw (None: training images turned upside down). shortlist: how many images
    for each picture are scored by methods that would take a pass over all of them for each (None: all, or what fits).
    """

    model: Any
    images: Images
    queries: Images | None = None
    generate: int = 0
    seed: int = 0
    prompts: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    guidance: float | None = None
    lora: Path | None = None
    methods: tuple[str, ...] = METHODS
    preset: str = ""
    top: int = 20
    seeds: tuple[int, ...] = (0,)
    learning_rate: float = RATE
    minutes: float = 0.0
    memory: float = 0.0
    self_check: bool = False
    held_out: Images | None = None
    shortlist: int | None = None

    def check(self) -> None:
        """Raise UserError for what cannot be answered, before anything is read."""
        if (self.queries is None) == (self.generate == 0):
            raise UserError("which pictures are to be explained? Give --queries DIR, or --generate N, and not both")
        if self.generate < 0 or self.top < 1 or not self.learning_rate > 0 or not self.seeds:
            raise UserError("--generate and --top must be 1 or more, --learning-rate positive, --seeds at least one")
        if self.prompts and self.labels:
            raise UserError("a model takes prompts or labels: give --prompt or --label, not both")
        if not (0 <= self.minutes < math.inf and 0 <= self.memory < math.inf):
            raise UserError("--minutes and --memory must be positive: leave them out for no limit")
        if self.shortlist is not None and self.shortlist < self.top:
            raise UserError(f"--shortlist {self.shortlist} is fewer than the {self.top} images of --top: ask for more")
        if self.held_out is not None and not self.self_check:
            raise UserError("--held-out is for --self-check: give both, or neither")
        if not self.methods:
            raise UserError(f"no methods to run: name some with --methods, such as {','.join(METHODS)}")

    def to_json(self) -> dict[str, Any]:
        """Return plain values, paths in full: what an answer is an answer to."""
        named = {name: _plain(getattr(self, name), name in PLACES) for name in self.__dataclass_fields__}
        return {name: value for name, value in named.items() if value is not None}

    @property
    def entries(self) -> list[str]:
        """The methods, each with its preset."""
        chosen = {name: self.preset or PRESETS.get(name, "quick") for name in self.methods}
        return [name if ":" in name else f"{name}:{preset}" for name, preset in chosen.items()]

    @property
    def hash(self) -> str:
        """A hash of all values."""
        return digest(self.to_json())


def parse_memory(text: str) -> float:
    """Return ``8GB``, ``500 MiB`` or a number of GiB in GiB, 0 for nothing; raises UserError for another text."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(?:([kmgt])i?b?)?\s*", text.lower())
    if text and (match is None or not 0 < float(match[1]) < MOST):
        raise UserError(f"--memory {shown(text)}: write a size such as 8GB or 500MB")
    return float(match[1]) * 1024.0 ** ("kmgt".index(match[2] or "g") - 2) if match else 0.0


def _plain(value: Any, is_place: bool) -> Any:
    if is_place and isinstance(value, str | Path):
        path = Path(value).expanduser()
        return str(path.resolve()) if path.exists() else str(value)
    if isinstance(value, str | int | float | None):
        return value
    if isinstance(value, tuple):
        return list(value)
    return getattr(value, "_fingerprint", None) or type(value).__name__  # a dataset, or a pipeline
