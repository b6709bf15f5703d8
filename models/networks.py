"""Networks: made by the names of diffusers' model classes or our own, or read from local folders."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from ..errors import UserError, brief
from .patch_pca import PatchPCA

OWN: dict[str, type[nn.Module]] = {"PatchPCA": PatchPCA}


def make_network(architecture: str, config: Mapping[str, Any]) -> nn.Module:
    """Return a network with initial weights from the global random state.

    Raises UserError for a class that diffusers does not have, or arguments that it does not take.
    """
    import diffusers

    network: type[nn.Module] | None = OWN.get(architecture) or getattr(diffusers, architecture, None)
    if not (isinstance(network, type) and issubclass(network, nn.Module)):
        raise UserError(f"diffusers has no network {architecture!r}: name a model class, such as UNet2DModel")
    try:
        net = network(**config)
    except (TypeError, ValueError) as error:
        raise UserError(f"{architecture} cannot be made from its config: {error}") from error
    for module in net.modules():
        if type(module).__name__ == "LabelEmbedding":  # it drops labels by itself, other ones at each of its calls
            setattr(module, "dropout_prob", 0.0)  # noqa: B010
    return net


def local(kind: Any, folder: Path, **options: Any) -> Any:
    """Return what a class's ``from_pretrained`` reads from a local folder, without any download.

    Raises UserError where the folder, a file of it or a weight is missing.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: save the whole pipeline with save_pretrained")
    weighted = "use_safetensors" in options
    options |= {"output_loading_info": True} if weighted else {}
    try:
        found = kind.from_pretrained(folder, local_files_only=True, **options)
    except Exception as error:  # whatever transformers and diffusers raise for broken files
        raise UserError(f"{folder} cannot be read as {kind.__name__}: {brief(str(error))}") from error
    if not weighted:
        return found
    found, info = found
    if info["missing_keys"]:
        first = sorted(info["missing_keys"])[0]
        raise UserError(f"{folder} lacks {len(info['missing_keys'])} weights, such as {first}: save it again")
    return found
