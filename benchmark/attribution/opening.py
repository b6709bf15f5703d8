"""Opening a model: a folder, an id on the hub or a pipeline object, with adapters beside it or not."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import diffusers

from ...errors import UserError, brief
from ...models.latents import Autoencoder
from ...models.pipelines.adapters import read_adapters
from ...models.pipelines.saved import SUPPORTED, Pipeline, read_pipeline
from ...models.training import load

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def open_model(model: Any, lora: Path | None = None, device: str = "cpu") -> Pipeline:
    """Return a pipeline's parts, its autoencoder on a device; lora: a folder of adapters, which then are what trains.

    Raises UserError for what cannot be had, read or used.
    """
    found = _read(model)
    if found.autoencoder is not None and device != "cpu":
        found = replace(found, autoencoder=Autoencoder(found.autoencoder.spec, found.autoencoder.state, device))
    return found if lora is None else _with_adapters(found, lora.expanduser())


def _read(model: Any) -> Pipeline:
    diffusers.utils.logging.disable_progress_bar()  # reading takes a moment, and what is long has a bar of its own
    if isinstance(model, str | Path):
        return read_pipeline(_folder(str(model)))
    if not hasattr(model, "save_pretrained"):
        raise UserError(f"a {type(model).__name__} is no pipeline: supported are {SUPPORTED}")
    if any(getattr(getattr(model, name, None), "peft_config", None) for name in ("unet", "transformer")):
        raise UserError("this pipeline has adapters loaded: give it without them, and their folder as lora")
    with TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return replace(read_pipeline(Path(folder)), folder=Path(type(model).__name__))


def _folder(model: str) -> Path:
    """Return a model's folder here; one on the hub is fetched first, without its weights in other formats."""
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder
    if not HUB_ID.fullmatch(model):
        raise UserError(f"there is no folder {folder}: name what save_pretrained wrote, or an id on the hub")
    try:
        return Path(diffusers.DiffusionPipeline.download(model, use_safetensors=True))
    except Exception as error:  # whatever the hub's library and the network raise
        why = brief(f"{type(error).__name__}: {error}")
        raise UserError(f"{model} is no folder here, and cannot be had from the hub ({why}): check the name") from error


def _with_adapters(pipeline: Pipeline, folder: Path) -> Pipeline:
    adapters = read_adapters(folder)
    try:
        load(replace(pipeline.spec, trainable=adapters.lora), adapters.weights, base=pipeline.weights)
    except (RuntimeError, UserError) as error:
        why = brief(str(error))
        raise UserError(f"the adapters of {folder} do not fit the network of {pipeline.folder}: {why}") from None
    return replace(pipeline, adapters=adapters)
