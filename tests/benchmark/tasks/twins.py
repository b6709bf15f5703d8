"""Tiny twins of the literature's tasks, as a plugin: their specifications, shrunk, on digits with such conditions."""

from dataclasses import replace
from pathlib import Path

import torch

from tdabench.benchmark.tasks import AutoencoderSpec, LoRA, shrunk
from tdabench.benchmark.tasks.published.artbench2_lora import TASK as ARTBENCH2
from tdabench.benchmark.tasks.published.artbench10_edm_dit import TASK as ARTBENCH10
from tdabench.benchmark.tasks.published.coco_edm_dit import TASK as COCO
from tdabench.datasets.digits import load as load_digits
from tdabench.methods import ImageDataset, dataset

HERE = Path(__file__).parent
SMALL = {"sample_size": 8, "patch_size": 2, "in_channels": 1, "out_channels": 1, "num_layers": 1}
HEADS = {"num_attention_heads": 2, "attention_head_dim": 4}
CODER = {
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": [4, 4],
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "latent_channels": 2,
    "norm_num_groups": 2,
    "sample_size": 8,
}
UNET = {
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
ADAPTED = shrunk(
    ARTBENCH2,
    "prompted-digits",
    UNET,
    autoencoder=AutoencoderSpec("AutoencoderKL", CODER, scale=0.18215),
    trainable=LoRA(2),
)
CAPTIONED = {**SMALL, **HEADS, "cross_attention_dim": 8, "caption_channels": 6}
TASKS = [
    replace(shrunk(ARTBENCH10, "digits_classes", {**SMALL, **HEADS}), name="artbench10-edm-dit-tiny"),
    replace(shrunk(COCO, "captioned-digits", CAPTIONED), name="coco-edm-dit-tiny"),
    replace(
        ADAPTED,
        name="artbench2-lora-tiny",
        weights={name: HERE / f"{name}.safetensors" for name in ("autoencoder", "base")},
    ),
]


def embedded(tokens: int, width: int) -> ImageDataset:
    data = load_digits()
    table = torch.randn(10, tokens, width, generator=torch.Generator().manual_seed(0))
    return replace(data, cond={"encoder_hidden_states": table[data.classes]})


@dataset("captioned-digits")
def load_captioned() -> ImageDataset:
    return embedded(1, 6)


@dataset("prompted-digits")
def load_prompted() -> ImageDataset:
    data = embedded(3, 8)
    return replace(data, null={"encoder_hidden_states": torch.zeros(3, 8)})
