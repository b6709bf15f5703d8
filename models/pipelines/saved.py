"""What ``save_pretrained`` of diffusers leaves in a folder: network, noise process, autoencoder, text encoder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import UserError, brief, shown
from ..latents import Autoencoder
from ..networks import local
from ..processes import DDPMProcess, open_process
from ..recipe import AutoencoderSpec, ModelSpec, Sampler
from .adapters import Adapters
from .settings import read_settings
from .text import TextEncoder

NETWORKS = ("UNet2DModel", "UNet2DConditionModel", "DiTTransformer2DModel")
SUPPORTED = "DDPMPipeline, DDIMPipeline, DiTPipeline, StableDiffusionPipeline, or the folder of such a one's network"
READ = {"unet", "transformer", "scheduler", "vae", "text_encoder", "tokenizer"}
UNUSED = {"safety_checker", "feature_extractor", "image_encoder"}  # they see what was made, or pictures as prompts

# What of a scheduler's settings decides the process and DDIM; how other samplers step does not.
PROCESS = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "prediction_type")
PROCESS += ("rescale_betas_zero_snr", "thresholding", "dynamic_thresholding_ratio", "clip_sample_range")
PROCESS += ("sample_max_value", "timestep_spacing", "steps_offset", "set_alpha_to_one")
WHOLE = "the pipeline"
STEPS = 50  # what the pipelines take where nobody says

# Settings with which a network wants more than image, time, labels or text.
MORE = ("addition_embed_type", "class_embed_type", "encoder_hid_dim_type", "time_cond_proj_dim")


@dataclass(frozen=True)
class Pipeline:
    """A saved pipeline's parts.

    channels, size (height, width; None: any) are its images'. cond: the conditions that the network takes, each with
    its number of classes or its width of embeddings. labels: class numbers by name, where the pipeline has them;
    adapters: those that were read beside it.
    """

    folder: Path
    spec: ModelSpec
    weights: dict[str, Tensor]
    channels: int
    size: tuple[int, int] | None
    cond: Mapping[str, int]
    autoencoder: Autoencoder | None = None
    text: TextEncoder | None = None
    labels: Mapping[str, int] = field(default_factory=dict)
    adapters: Adapters | None = None


def read_pipeline(folder: Path, process: Mapping[str, Any] | None = None) -> Pipeline:
    """Return what the folder of a pipeline, or of a network alone, holds.

    process: instead of the scheduler's. Raises UserError for what is missing or unsupported.
    """
    index = _index(folder)
    net = _network(folder, index)
    coder = _autoencoder(folder / "vae", net) if index.get("vae") else None
    sizes = _sizes(net, coder)
    return Pipeline(
        folder,
        _spec(net, coder, *_process(folder, index, process)),
        {name: value.detach().contiguous() for name, value in net.state_dict().items()},
        *sizes,
        cond=_conditions(folder, net),
        autoencoder=coder,
        text=TextEncoder(folder / "tokenizer", folder / "text_encoder") if index.get("text_encoder") else None,
        labels=_labels(folder, index),
    )


def _index(folder: Path) -> dict[str, Any]:
    """Return a pipeline's components by name; of a network's folder none."""
    path = folder / "model_index.json"
    if not path.is_file():
        if not (folder / "config.json").is_file():
            raise UserError(f"{folder} has neither model_index.json nor config.json: name what save_pretrained wrote")
        return {}
    index = read_settings(path, WHOLE)
    parts = {name: value for name, value in index.items() if isinstance(value, list) and any(value)}
    odd = [name for name, value in parts.items() if len(value) != 2 or not all(isinstance(one, str) for one in value)]
    if odd:
        raise UserError(
            f"{path} says {shown(parts[odd[0]])} of {shown(odd[0])}, not a library and a class: save it again"
        )
    beyond = set(parts) - READ - UNUSED
    if beyond or not {"unet", "transformer"} & set(parts):
        why = f"has {brief(', '.join(sorted(beyond)))}" if beyond else "has no network"
        raise UserError(f"{folder} holds a {shown(index.get('_class_name'))}, which {why}: supported are {SUPPORTED}")
    return {**parts, "id2label": index.get("id2label") or {}}


def _network(folder: Path, index: Mapping[str, Any]) -> Any:
    name = next((name for name in ("unet", "transformer") if name in index), None)
    kind = index[name][1] if name else read_settings(folder / "config.json", WHOLE).get("_class_name")
    if kind not in NETWORKS:
        raise UserError(f"{folder} holds a {shown(kind)}, and the networks known are {', '.join(NETWORKS)}")
    return _model(kind, folder / name if name else folder)


def _model(kind: str, folder: Path) -> Any:
    import diffusers

    options = {"use_safetensors": True, "low_cpu_mem_usage": False, "torch_dtype": torch.float32}
    return local(getattr(diffusers, kind), folder, **options).eval()


def _config(model: Any) -> dict[str, Any]:
    """Return the arguments that make the model again, as JSON has them."""
    return {name: value for name, value in json.loads(model.to_json_string()).items() if not name.startswith("_")}


def _autoencoder(folder: Path, net: Any) -> Autoencoder:
    net_channels, model = net.config.in_channels, _model("AutoencoderKL", folder)
    config = _config(model)
    if config["latent_channels"] != net_channels:
        channels = f"{net_channels} channels, and the autoencoder makes {config['latent_channels']}"
        raise UserError(f"the network beside {folder} takes {channels}: inpainting and the like are not supported")
    if config.get("latents_mean") or config.get("latents_std"):
        raise UserError(f"{folder} shifts each channel by its latents_mean: only scaling_factor is supported")
    spec = AutoencoderSpec("AutoencoderKL", config, config["scaling_factor"], config.get("shift_factor") or 0.0)
    return Autoencoder(spec, model.state_dict())


def _sizes(net: Any, coder: Autoencoder | None) -> tuple[int, tuple[int, int] | None]:
    """Return channels and (height, width) of the images."""
    size = net.config.sample_size
    pair = (size, size) if isinstance(size, int) else tuple(size) if size else None
    if coder is None:
        return net.config.in_channels, pair
    factor = 2 ** (len(coder.spec.config["block_out_channels"]) - 1)
    return coder.spec.config["in_channels"], (pair[0] * factor, pair[1] * factor) if pair else None


def _conditions(folder: Path, net: Any) -> dict[str, int]:
    config, kind = net.config, type(net).__name__
    wants = [name for name in MORE if config.get(name) is not None]
    if wants or (kind == "UNet2DConditionModel" and config.num_class_embeds):
        raise UserError(f"the network of {folder} wants more than text ({', '.join(wants) or 'labels'}): not supported")
    if kind == "UNet2DConditionModel":
        return {"encoder_hidden_states": config.cross_attention_dim}
    classes = config.num_embeds_ada_norm if kind == "DiTTransformer2DModel" else config.num_class_embeds
    return {"class_labels": classes} if classes else {}


def _process(folder: Path, index: Mapping[str, Any], given: Mapping[str, Any] | None) -> tuple[dict[str, Any], bool]:
    """Return the process's settings, and whether DDIM clips the images that it predicts."""
    import diffusers

    places = [folder / "scheduler"] if index else [folder, folder.parent / "scheduler"]
    home = next((place for place in places if (place / "scheduler_config.json").is_file()), None)
    if given is not None:
        open_process(given)
        return dict(given), "vae" not in index
    if home is None:
        raise UserError(f"{folder} has no scheduler_config.json: save the scheduler too, or say its `process`")
    kind = str(read_settings(home / "scheduler_config.json", WHOLE).get("_class_name"))
    scheduler = local(getattr(diffusers, kind, diffusers.DDPMScheduler), home)
    settings = {name: scheduler.config[name] for name in PROCESS if scheduler.config.get(name) is not None}
    if not hasattr(scheduler, "alphas_cumprod") or "beta_schedule" not in settings:
        raise UserError(f"{home} holds a {kind}, which is no DDPM process with betas: not supported")
    process = open_process(settings)
    assert isinstance(process, DDPMProcess)
    if not torch.allclose(process.alphas_cumprod.float(), scheduler.alphas_cumprod.float(), rtol=1e-4):
        raise UserError(f"{home} holds a {kind}, whose noise levels are not those of DDPM with its betas")
    if "text_encoder" in index:  # what StableDiffusionPipeline makes of its scheduler, whatever is saved
        return {**settings, "steps_offset": 1}, False
    return settings, bool(scheduler.config.get("clip_sample"))


def _spec(net: Any, coder: Autoencoder | None, process: dict[str, Any], clip: bool) -> ModelSpec:
    channels, answered = net.config.in_channels, net.config.out_channels
    if answered not in (channels, 2 * channels):
        raise UserError(f"the network takes {channels} channels and answers {answered}: neither as many nor twice that")
    kind, config = type(net).__name__, _config(net)
    steps = min(STEPS, process.get("num_train_timesteps", 1000))
    return ModelSpec(
        architecture=kind,
        config=config,
        process=process,
        sampler=Sampler(steps, clip=clip),
        null={"class_labels": config["num_embeds_ada_norm"]} if kind == "DiTTransformer2DModel" else {},
        autoencoder=coder.spec if coder else None,
    )


def _labels(folder: Path, index: Mapping[str, Any]) -> dict[str, int]:
    """Return class numbers by name; one class may have several, between commas."""
    named = index.get("id2label", {})
    try:
        return {name.strip(): int(number) for number, names in named.items() for name in names.split(",")}
    except (AttributeError, ValueError):
        raise UserError(f"{folder / 'model_index.json'} has an id2label that is no names by number: mend it") from None
