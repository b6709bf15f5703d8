"""LoRA weights as peft's ``save_pretrained`` and diffusers' ``save_lora_weights`` leave them in a folder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from ...errors import UserError, brief, shown
from ..recipe import LoRA
from .settings import json_object, read_settings

PEFT, DIFFUSERS = "adapter_model.safetensors", "pytorch_lora_weights.safetensors"
NETWORKS = ("base_model.model.", "unet.", "transformer.")  # how names of a network's adapters begin
ENDS = {"lora_A": "lora_A", "lora_B": "lora_B", "lora.down": "lora_A", "lora.up": "lora_B"}
NAME = re.compile(rf"(?P<layer>.+)\.(?P<end>{'|'.join(map(re.escape, ENDS))})(\.default)?\.weight")
UNKNOWN = ("use_dora", "use_rslora", "rank_pattern", "alpha_pattern", "bias_pattern", "modules_to_save")

MOST = 1e9  # of alpha, which is about a rank


@dataclass(frozen=True)
class Adapters:
    """Low-rank adapters: which layers they adapt and how, and their weights by the names in the adapted network."""

    lora: LoRA
    weights: dict[str, Tensor]


def read_adapters(folder: Path) -> Adapters:
    """Return the adapters in a folder; raises UserError where there are none, or of a kind that is not supported."""
    path = next((folder / name for name in (PEFT, DIFFUSERS) if (folder / name).is_file()), None)
    if path is None:
        raise UserError(f"{folder} holds neither {PEFT} nor {DIFFUSERS}: name what peft or save_lora_weights wrote")
    tensors, settings = _read(path)
    if path.name == PEFT:
        settings = read_settings(folder / "adapter_config.json", "the adapters")
    unknown = [name for name in UNKNOWN if settings.get(name)]
    if unknown:
        raise UserError(f"{folder} has adapters with {', '.join(unknown)}: only plain LoRA is supported")
    alpha = settings.get("lora_alpha")
    if not (alpha is None or (type(alpha) in (int, float) and 0 <= alpha < MOST)):
        raise UserError(f"{folder} has adapters with the lora_alpha {shown(alpha)}, which is no scale: save them again")
    return _adapters(path, tensors, alpha)


def _adapters(path: Path, tensors: Mapping[str, Tensor], alpha: float | None) -> Adapters:
    weights, layers = {}, set()
    for name, value in tensors.items():
        if name.endswith(".alpha") and value.numel() == 1:
            alpha = float(value)
            continue
        start = next((start for start in NETWORKS if name.startswith(start)), None)
        match = NAME.fullmatch(name.removeprefix(start)) if start else None
        if match is None or value.dim() < 2:
            raise UserError(
                f"{path} has {shown(name)}, which is no LoRA weight of a unet or transformer: not supported"
            )
        layers.add(match["layer"])
        weights[f"{match['layer']}.{ENDS[match['end']]}.default.weight"] = value.float().contiguous()
    ranks = {value.shape[0] for name, value in weights.items() if ".lora_A." in name}
    if len(ranks) != 1:
        raise UserError(f"{path} has adapters of {len(ranks)} ranks: one rank is supported")
    targets = "|".join(sorted(map(re.escape, layers)))
    return Adapters(LoRA(ranks.pop(), targets, alpha), weights)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors of a file, and the settings that diffusers writes beside them, without their prefixes."""
    try:
        with safe_open(path, "pt") as file:
            beside = json_object((file.metadata() or {}).get("lora_adapter_metadata", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"{path} cannot be read ({brief(str(error))}): save the adapters again") from None
    return tensors, {name.partition(".")[2]: value for name, value in beside.items()}
