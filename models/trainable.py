"""The parameters that train: all, those of certain names, or low-rank adapters beside frozen weights."""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from ..errors import UserError
from .recipe import LoRA


def restrict(net: nn.Module, trainable: str | LoRA) -> None:
    """Let only what trains have gradients; adapters are put into the network, from the global random state.

    Raises UserError where nothing is named, or peft is missing.
    """
    if isinstance(trainable, LoRA):
        _adapt(net, trainable)
    elif trainable:
        _choose(net, trainable)
    if not any(parameter.requires_grad for parameter in net.parameters()):
        raise UserError(f"no parameter of {type(net).__name__} has a name that {trainable!r} matches as a whole")


def _choose(net: nn.Module, pattern: str) -> None:
    try:
        wanted = re.compile(pattern)
    except re.error as error:
        raise UserError(f"{pattern!r} is no regular expression of parameters' names: {error}") from None
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(wanted.fullmatch(name) is not None)


def _adapt(net: nn.Module, lora: LoRA) -> None:
    try:
        from peft import LoraConfig, inject_adapter_in_model  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UserError(f"LoRA needs peft: pip install 'tdabench[lora]' ({error})") from error
    alpha: Any = lora.rank if lora.alpha is None else lora.alpha
    try:
        config = LoraConfig(r=lora.rank, lora_alpha=alpha, target_modules=lora.targets)
        inject_adapter_in_model(config, net)
    except (ValueError, re.error) as error:
        raise UserError(f"LoRA of {lora.targets!r} does not fit {type(net).__name__}: {error}") from error
