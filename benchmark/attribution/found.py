"""What a request turned out to be, in a few lines: the model, its images, the pictures, and what is not known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ...models.processes import open_process
from .items import LABEL, TEXT
from .problem import Made

SHOWN = 5  # names of a longer list


def found(made: Made) -> dict[str, str]:
    """Return what was found, by what it is about."""
    lines = {
        "model": _model(made),
        "trained": _trained(made),
        "conditions": _conditions(made),
        "images": _images(made),
        "pictures": _pictures(made),
    }
    return {name: line for name, line in lines.items() if line}


def _model(made: Made) -> str:
    spec, pipeline = made.pipeline.spec, made.pipeline
    numbers = sum(value.numel() for value in pipeline.weights.values())
    process = open_process(spec.process)
    kind = spec.process.get("prediction_type", "")
    asked = f"{type(process).__name__.removesuffix('Process')}{f', {kind}' if kind else ''}"
    height, width = made.own.data.images.shape[2:]
    latent = f", latents of {' x '.join(map(str, made.problem().train.shape))}" if spec.autoencoder else ""
    size = f"{width} x {height} pixels of {pipeline.channels} channel{'s' if pipeline.channels > 1 else ''}"
    return f"{pipeline.folder}: {spec.architecture} of {numbers:,} parameters ({asked}), {size}{latent}"


def _trained(made: Made) -> str:
    adapters = made.pipeline.adapters
    if adapters is None:
        return "all parameters"
    numbers = sum(value.numel() for value in adapters.weights.values())
    return f"adapters of rank {adapters.lora.rank} alone, {numbers:,} parameters"


def _conditions(made: Made) -> str:
    cond = made.pipeline.cond
    if LABEL in cond:
        named = ", ".join(f"{name}={number}" for name, number in list(made.numbers.items())[:SHOWN])
        return f"{cond[LABEL]} classes ({named}{', ...' if len(made.numbers) > SHOWN else ''})"
    return f"captions as embeddings of {cond[TEXT]} numbers a token" if TEXT in cond else ""


def _images(made: Made) -> str:
    own, changed = made.own, []
    if own.skipped:
        changed.append(f"{len(own.skipped)} left out that cannot be read: {_named(own.skipped)}")
    if own.resized:
        changed.append(f"{own.resized:,} resized and cut to the middle")
    if own.converted:
        changed.append(f"{own.converted:,} converted to the model's colours")
    return f"{len(own.data):,}" + "".join(f"; {change}" for change in changed)


def _pictures(made: Made) -> str:
    request, count = made.request, len(made.assets.manifest["queries"])
    if not request.generate:
        left = f"; {len(made.skipped)} left out that cannot be read: {_named(made.skipped)}" if made.skipped else ""
        return f"{count} given{left}"
    words = request.prompts or request.labels
    under = f" under {', '.join(map(repr, words))}" if words else ""
    scale = float(made.problem().queries.guidance[0])
    return f"{count} generated from seed {request.seed}{under}{f', guidance {scale:g}' if scale else ''}"


def _named(reasons: Mapping[str, str]) -> str:
    return ", ".join(list(reasons)[:SHOWN]) + (", ..." if len(reasons) > SHOWN else "")


def unknowns(made: Made, methods: Iterator[Any] | list[Any]) -> list[str]:
    """Return what methods (classes) need that is not known, and what stands for it."""
    needy = sorted({cls.name for cls in methods if "recipe" in cls.needs})
    if not needy:
        return []
    rate = made.request.learning_rate
    return [
        f"how the model was trained is not known: {', '.join(needy)} takes AdamW at {rate:g} "
        f"instead of its optimiser (--learning-rate)"
    ]
