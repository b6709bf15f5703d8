"""The published image encoders, as vectors and as measures of how alike two images are.

They need their weights, some also the extra ``encoders``, and are those of MUCS' counterfactual evaluation: CLIP
ViT-L/14 (LAION-2B), DINOv2 ViT-B/14, SSCD (disc_mixup), and LPIPS (VGG-16).
"""

from __future__ import annotations

import json
import socket
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from textwrap import shorten
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, cosine_similarity, interpolate, normalize

from ...errors import UserError, unknown
from ...store import file_hash

Compare = Callable[[Tensor, Tensor], Tensor]
Embed = Callable[[Tensor], Tensor]
Channels = tuple[float, ...]

MIN_SIDE = 32  # the pictures that these encoders learned from are much larger; below, they see mostly the enlargement
BATCH = 16
PATIENCE = 5.0  # seconds that a server may stay silent

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
# What a repository's preprocessor_config.json does not say is taken from these; LAION's ViT-L/14 was not trained with
# OpenAI's mean and standard deviation.
HUB = {
    "clip": ("laion/CLIP-ViT-L-14-laion2B-s32B-b82K", "1627032197142fbe2a7cfec626f4ced3ae60d07a", HALF),
    "dino": ("facebook/dinov2-base", "f9e44c814b77203eaa57a6bdbbd535f21ede1415", IMAGENET),
}
SSCD_URL = "https://dl.fbaipublicfiles.com/sscd-copy-detection/sscd_disc_mixup.torchscript.pt"
SSCD_SHA256 = "9f26bd4c848cc19b73d2ae92eea6e04886f61a7b764ceb7a13aeee62e6a6db56"
SSCD_SIDE = 320
VGG_URL = "https://download.pytorch.org/models/vgg16-397923af.pth"
VGG_SHA256 = "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0"
VGG_BLOCKS = (64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)
LPIPS_SIDE = 224
LPIPS_COLOURS = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # mean and standard deviation in [-1, 1]


class Unavailable(Exception):
    """An encoder that cannot be had here: the message is the reason in one line."""


class Opened(NamedTuple):
    """An encoder: the similarity of two batches [n], and vectors [n, D] of one."""

    compare: Compare
    embed: Embed


@dataclass(frozen=True)
class Embedding:
    """Images as a model's vectors: ``side`` in pixels, mean and standard deviation [3] of channels in [0, 1]."""

    model: Callable[[Tensor], Tensor]
    side: int
    mean: Channels
    std: Channels

    def __call__(self, images: Tensor) -> Tensor:
        """Return the vectors [n, D] of images [n, C, H, W] in [-1, 1], as float64 on the CPU."""
        unit = (resized(images, self.side) + 1) / 2
        mean, std = (unit.new_tensor(values).view(1, 3, 1, 1) for values in (self.mean, self.std))
        return self.model((unit - mean) / std).cpu().double()

    def cosine(self, one: Tensor, other: Tensor) -> Tensor:
        """Return the cosine of two batches' vectors."""
        return cosine_similarity(self(one), self(other), dim=1)


def open_encoder(name: str, weights: str | None = None, device: str = "cpu") -> Compare:
    """Return the similarity of two batches [n, C, H, W] in [-1, 1], C = 1 or 3 -> [n] float64 on the CPU.

    Cosines of embeddings, and 1 - LPIPS: higher is more alike. ``weights``: a folder or hub id (clip, dino) or a
    TorchScript file (sscd) instead of the default. Raises UserError for an unknown name, and Unavailable where packages
    or weights are missing.
    """
    if name not in OPENERS:
        raise unknown("encoder", name, NAMES)
    opener, advice = OPENERS[name]
    with _available(name, advice):
        compare = _in_batches(opener(name, weights, device).compare, device)
        blank = torch.zeros(1, 1, MIN_SIDE, MIN_SIDE)
        compare(blank, blank)  # weights of another kind of model fail here rather than in the middle of a run
    return compare


def open_embedding(name: str, weights: str | None = None, device: str = "cpu") -> Embed:
    """Return what embeds images [n, C, H, W] in [-1, 1], C = 1 or 3, as vectors [n, D] float32 on the CPU.

    By clip, dino and sscd images are alike as their cosine is high, by lpips as their squared distance, which is LPIPS,
    is low. Raises as ``open_encoder`` does.
    """
    if name not in OPENERS:
        raise unknown("encoder", name, NAMES)
    opener, advice = OPENERS[name]
    with _available(name, advice):
        embed = opener(name, weights, device).embed

    @torch.no_grad()
    def embedded(images: Tensor) -> Tensor:
        return torch.cat([embed(part.to(device)).cpu().float() for part in images.split(BATCH)])

    return embedded


def weight_files(name: str, weights: str | None = None) -> tuple[list[Path], str | None]:
    """Return the files of an encoder's weights, brought here if need be, and the folder or file to open it with."""
    if name not in OPENERS:
        raise unknown("encoder", name, NAMES)
    with _available(name, OPENERS[name][1]):
        if name in HUB:
            folder = _hub_folder(weights or HUB[name][0], None if weights else HUB[name][1])
            files = [*folder.glob("*.safetensors"), *folder.glob("*config.json")]
            if not any(path.suffix == ".safetensors" for path in files):
                raise FileNotFoundError(f"{folder} holds no .safetensors file")
            return files, str(folder.resolve())
        if name == "lpips":
            return [_file(VGG_URL, VGG_SHA256), _lpips_file()], None
        path = Path(weights).expanduser() if weights else _file(SSCD_URL, SSCD_SHA256)
        if not path.is_file():
            raise FileNotFoundError(f"no file {path}")
        return [path], str(path.resolve())


def resized(images: Tensor, side: int) -> Tensor:
    """Return images [n, C, H, W] in [-1, 1] as [n, 3, side, side], whole and without the overshoot of bicubic edges."""
    colour = images.float().expand(-1, 3, -1, -1)
    return interpolate(colour, (side, side), mode="bicubic", antialias=True).clamp(-1, 1)


def _in_batches(compare: Compare, device: str) -> Compare:
    @torch.no_grad()
    def compared(one: Tensor, other: Tensor) -> Tensor:
        pairs = zip(one.split(BATCH), other.split(BATCH), strict=True)
        return torch.cat([compare(a.to(device), b.to(device)).cpu().double() for a, b in pairs])

    return compared


@contextmanager
def _available(name: str, advice: str) -> Iterator[None]:
    """Turn whatever loading foreign weights raises (OSError, SafetensorError, URLError …) into Unavailable."""
    try:
        yield
    except UserError:
        raise
    except ImportError as error:
        raise Unavailable(f"{name}: {_line(error)}; pip install -c constraints.txt -e '.[encoders]'") from error
    except Exception as error:
        raise Unavailable(f"{name}: {_line(error)}; {advice}") from error


def _line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return shorten(lines[0], 240, placeholder=" …").rstrip(".:; ")


def _hub_encoder(name: str, weights: str | None, device: str) -> Opened:
    default, revision, colours = HUB[name]
    folder = _hub_folder(weights or default, None if weights else revision)
    model = _transformer(name, folder).to(device)
    side, mean, std = _preprocessing(folder, model.config.image_size, colours)
    found = Embedding(lambda images: _vectors(name, model(pixel_values=images)), side, mean, std)
    return Opened(found.cosine, found)


def _hub_folder(source: str, revision: str | None) -> Path:
    """Return a local folder, or the hub's files in its cache, brought there if need be."""
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    if source.startswith(("/", ".", "~")):
        raise FileNotFoundError(f"no folder {folder}")
    return _downloaded(source, revision)


def _downloaded(source: str, revision: str | None) -> Path:
    """Return a hub repository's folder in the cache; one question first, since a download retries for half a minute."""
    from huggingface_hub import HfApi, snapshot_download

    files = ["config.json", "preprocessor_config.json", "model*.safetensors", "model.safetensors.index.json"]
    try:
        HfApi().model_info(source, revision=revision, timeout=PATIENCE)
    except Exception as unreachable:
        try:
            return Path(snapshot_download(source, revision=revision, allow_patterns=files, local_files_only=True))
        except FileNotFoundError:
            raise unreachable from None
    return Path(snapshot_download(source, revision=revision, allow_patterns=files))


def _transformer(name: str, folder: Path) -> Any:
    from transformers import AutoModel, CLIPVisionModelWithProjection

    kind: Any = CLIPVisionModelWithProjection if name == "clip" else AutoModel
    options = {"local_files_only": True, "use_safetensors": True, "output_loading_info": True}
    with _quiet_transformers():
        model, report = kind.from_pretrained(folder, **options)
    if report["missing_keys"]:  # transformers would go on with random numbers in their place
        raise ValueError(f"{folder} holds no {kind.__name__} ({sorted(report['missing_keys'])[0]} is missing)")
    return model.float().eval()


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Keep back the list of a CLIP's text weights, which the vision half leaves unused, and the progress bar."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        logging.enable_progress_bar() if bars else None


def _preprocessing(folder: Path, side: int, colours: tuple[Channels, Channels]) -> tuple[int, Channels, Channels]:
    """Return a model's (side, mean, std): those of preprocessor_config.json, else the ones given.

    DINOv2's own config says 518, the side of its position table; its features are read at 224.
    """
    path = folder / "preprocessor_config.json"
    said = json.loads(path.read_text()) if path.is_file() else {}
    crop = said.get("crop_size", side)
    mean, std = said.get("image_mean", colours[0]), said.get("image_std", colours[1])
    return crop["height"] if isinstance(crop, dict) else crop, tuple(mean), tuple(std)


def _vectors(name: str, output: Any) -> Tensor:
    return output.image_embeds if name == "clip" else output.last_hidden_state[:, 0]


def _sscd(name: str, weights: str | None, device: str) -> Opened:
    path = Path(weights).expanduser() if weights else _file(SSCD_URL, SSCD_SHA256)
    found = Embedding(_torchscript(path, device), SSCD_SIDE, *IMAGENET)
    return Opened(found.cosine, found)


def _file(url: str, sha256: str) -> Path:
    """Return the file in torch.hub's folder, downloaded if need be; raises ValueError where it is not the published.

    torch.hub puts it there whole or not at all, but asks no more of a file that lies there already.
    """
    path = Path(torch.hub.get_dir(), "checkpoints", Path(url).name)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with _impatient():
            torch.hub.download_url_to_file(url, str(path), hash_prefix=sha256)
    if file_hash(path) != sha256:
        raise ValueError(f"{path} is not what was published (its hash differs): move it elsewhere")
    return path


def _torchscript(path: Path, device: str) -> nn.Module:
    with warnings.catch_warnings():  # it is what SSCD is published as
        warnings.filterwarnings("ignore", message=".*torch.jit.load. is deprecated", category=DeprecationWarning)
        return torch.jit.load(str(path), map_location=device).eval()


def _lpips(name: str, weights: str | None, device: str) -> Opened:
    if weights:
        raise UserError(f"{name} takes no weights: put {Path(VGG_URL).name} into {torch.hub.get_dir()}/checkpoints")
    vgg, layers = _vgg16().to(device), [layer.to(device) for layer in _lpips_layers()]
    return Opened(
        lambda one, other: 1 - _distance(vgg, layers, resized(one, LPIPS_SIDE), resized(other, LPIPS_SIDE)),
        lambda images: _weighted(vgg, layers, resized(images, LPIPS_SIDE)),
    )


def _vgg16() -> nn.Sequential:
    """Return VGG-16 up to its classifier; not torchvision's, whose wheel on PyPI breaks beside a CPU build of torch."""
    tensors, prefix = _tensors(_file(VGG_URL, VGG_SHA256)), "features."
    layers, width = [], 3
    for block in VGG_BLOCKS:
        for size in block:
            layers += [nn.Conv2d(width, size, 3, padding=1), nn.ReLU(inplace=True)]
            width = size
        layers.append(nn.MaxPool2d(2))
    vgg = nn.Sequential(*layers)
    vgg.load_state_dict({name.removeprefix(prefix): tensors[name] for name in tensors if name.startswith(prefix)})
    return vgg


def _lpips_layers() -> list[Tensor]:
    """Return the learned weights of channels [1, C, 1, 1], which torchmetrics ships; ``lpips`` is not maintained."""
    tensors = _tensors(_lpips_file())
    return [tensors[f"lin{index}.model.1.weight"] for index in range(len(VGG_BLOCKS))]


def _lpips_file() -> Path:
    return Path(str(distribution("torchmetrics").locate_file("torchmetrics/functional/image/lpips_models/vgg.pth")))


def _tensors(path: Path) -> dict[str, Tensor]:
    """Return what a .pth file holds, without running anything that it may hold besides."""
    url = path.absolute().as_uri()
    return torch.hub.load_state_dict_from_url(url, str(path.parent), map_location="cpu", weights_only=True)


def _distance(vgg: nn.Sequential, layers: list[Tensor], one: Tensor, other: Tensor) -> Tensor:
    """Return LPIPS [n] of images [n, 3, H, W] in [-1, 1] (Zhang et al., 2018, equation 1)."""
    parts = zip(layers, _unit_features(vgg, one), _unit_features(vgg, other), strict=True)
    return torch.stack([conv2d((a - b).square(), layer).mean((1, 2, 3)) for layer, a, b in parts]).sum(0)


def _weighted(vgg: nn.Sequential, layers: list[Tensor], images: Tensor) -> Tensor:
    """Return vectors [n, D] whose squared distance is LPIPS: no learned weight is negative."""
    parts = zip(layers, _unit_features(vgg, images), strict=True)
    return torch.cat([(layer.sqrt() * a / a[0, 0].numel() ** 0.5).flatten(1) for layer, a in parts], 1)


def _unit_features(vgg: nn.Sequential, images: Tensor) -> Iterator[Tensor]:
    """Yield the features [n, C, H, W] that enter each pooling, as unit vectors of channels."""
    mean, std = (images.new_tensor(values).view(1, 3, 1, 1) for values in LPIPS_COLOURS)
    found = (images - mean) / std
    for layer in vgg:
        if isinstance(layer, nn.MaxPool2d):
            yield normalize(found, dim=1)
        found = layer(found)


@contextmanager
def _impatient() -> Iterator[None]:
    """Bound how long torch.hub's downloads wait for a silent server; by themselves they wait forever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


_HUB_ADVICE = "connect to the network once, or give a folder with config.json and model.safetensors"
OPENERS: dict[str, tuple[Callable[[str, str | None, str], Opened], str]] = {
    "clip": (_hub_encoder, _HUB_ADVICE),
    "dino": (_hub_encoder, _HUB_ADVICE),
    "sscd": (_sscd, f"connect to the network once, or give a copy of {SSCD_URL}"),
    "lpips": (_lpips, f"connect to the network once, or put a copy of {VGG_URL} into torch.hub's folder"),
}
NAMES = tuple(OPENERS)
