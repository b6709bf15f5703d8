"""Tiny twins of the literature's tasks, as a plugin: their specifications, shrunk, on digits with such conditions.

A twin walks the code of its task in seconds: process, conditions, dropping, guidance, latents, adapters, and held-out
queries from a part of the dataset that never trains. Its scores mean nothing.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tdabench.benchmark.contract.tiny import LATENT
from tdabench.benchmark.tasks import LoRA, RemovalPlan, TaskSpec
from tdabench.benchmark.tasks.published.artbench2_lora import TASK as ARTBENCH2
from tdabench.benchmark.tasks.published.artbench10_edm_dit import TASK as ARTBENCH10
from tdabench.benchmark.tasks.published.celeba import TASK as CELEBA
from tdabench.benchmark.tasks.published.cifar2 import TASK as CIFAR2
from tdabench.benchmark.tasks.published.cifar10_edm_dit import TASK as CIFAR10
from tdabench.benchmark.tasks.published.coco_edm_dit import TASK as COCO
from tdabench.benchmark.tasks.published.fashion import TASK as FASHION
from tdabench.datasets.digits import load as load_digits
from tdabench.methods import ImageDataset, dataset

HERE = Path(__file__).parent
TRUTH = {"report": 2, "open": 1, "report_replicates": 2, "open_replicates": 1, "full": 1, "bins": 2, "draws_per_bin": 2}
REMOVAL = RemovalPlan(top_share=0.1, seeds=1, per_query=1, per_query_shares=(0.1,))
TRAINED = {"steps": 3, "batch_size": 4, "learning_rate": 3e-3, "warmup_steps": 1, "checkpoints": (2,)}
CODER = replace(LATENT.recipe.model.autoencoder, scale=0.18215)
GREY = {"sample_size": 8, "in_channels": 1, "out_channels": 1}
UNET = {
    **GREY,
    "block_out_channels": [8, 8],
    "layers_per_block": 1,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    "norm_num_groups": 4,
}
TRANSFORMER = {**GREY, "patch_size": 2, "num_layers": 1, "num_attention_heads": 2, "attention_head_dim": 4}
OF_LATENTS = {
    "sample_size": 4,
    "in_channels": 2,
    "out_channels": 2,
    "block_out_channels": [8, 8],
    "layers_per_block": 1,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "norm_num_groups": 4,
    "cross_attention_dim": 8,
    "attention_head_dim": 4,
}


def shrunk(spec: TaskSpec, data: str, config: Mapping[str, Any], **parts: Any) -> dict[str, Any]:
    """Return what changes in a task; config: of the network; parts: of the model, such as the autoencoder."""
    recipe, large = spec.recipe, spec.recipe.model
    model = replace(large, config={**large.config, **config}, sampler=replace(large.sampler, steps=4), **parts)
    return {
        "dataset": data,
        "n_train": 24,
        "recipe": replace(recipe, model=model, ema_decay=min(recipe.ema_decay, 0.8), **TRAINED),
        "queries": replace(spec.queries, dev=1, test=2, controls=1),
        "truth": replace(spec.truth, **TRUTH),
        "removal": REMOVAL,
        "weights": {name: HERE / f"{name}.safetensors" for name in spec.weights},
    }


ADAPTED = {"autoencoder": CODER, "trainable": LoRA(2)}
CAPTIONED = {**TRANSFORMER, "cross_attention_dim": 8, "caption_channels": 6}
TASKS = [
    replace(CIFAR2, name="cifar2-tiny", **shrunk(CIFAR2, "plain-digits", UNET)),
    replace(CELEBA, name="celeba-tiny", **shrunk(CELEBA, "plain-digits", UNET)),
    replace(FASHION, name="fashion-tiny", **shrunk(FASHION, "plain-digits", UNET)),
    replace(ARTBENCH2, name="artbench2-lora-tiny", **shrunk(ARTBENCH2, "prompted-digits", OF_LATENTS, **ADAPTED)),
    replace(CIFAR10, name="cifar10-edm-dit-tiny", **shrunk(CIFAR10, "one-label-digits", TRANSFORMER)),
    replace(ARTBENCH10, name="artbench10-edm-dit-tiny", **shrunk(ARTBENCH10, "labelled-digits", TRANSFORMER)),
    replace(COCO, name="coco-edm-dit-tiny", **shrunk(COCO, "captioned-digits", CAPTIONED)),
]


@dataset("plain-digits")
def load_plain() -> ImageDataset:
    data = load_digits()
    return replace(data, groups={"heldout": (torch.arange(len(data)) % 4 == 3).long()})


@dataset("one-label-digits")
def load_one_label() -> ImageDataset:
    data = load_plain()
    return replace(data, cond={"class_labels": torch.zeros_like(data.classes)})


@dataset("labelled-digits")
def load_labelled() -> ImageDataset:
    data = load_plain()
    return replace(data, cond={"class_labels": data.classes})


@dataset("captioned-digits")
def load_captioned() -> ImageDataset:
    return embedded(1, 6)


@dataset("prompted-digits")
def load_prompted() -> ImageDataset:
    data = embedded(3, 8)
    return replace(data, null={"encoder_hidden_states": torch.zeros(3, 8)})


def embedded(tokens: int, width: int) -> ImageDataset:
    data = load_plain()
    table = torch.randn(10, tokens, width, generator=torch.Generator().manual_seed(0))
    return replace(data, cond={"encoder_hidden_states": table[data.classes]})
