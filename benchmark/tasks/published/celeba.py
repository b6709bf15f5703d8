"""celeba@1: D-TRAK's CelebA (Zheng et al., arXiv 2311.00500): 5,000 faces of 64x64 pixels, an unconditional DDPM.

As ``cifar2``, with the network that the authors' code (sail-sg/D-TRAK, e2a0c2e, CelebA/config.json) has for it, and
the same differences.
"""

from dataclasses import replace

from .cifar2 import TASK as CIFAR2

PLAIN = "DownBlock2D"
MODEL = replace(
    CIFAR2.recipe.model,
    config={
        "sample_size": 64,
        "in_channels": 3,
        "out_channels": 3,
        "block_out_channels": [128, 128, 256, 256, 512, 512],
        "layers_per_block": 2,
        "down_block_types": [PLAIN, PLAIN, PLAIN, PLAIN, "AttnDownBlock2D", PLAIN],
        "up_block_types": ["UpBlock2D", "AttnUpBlock2D", *["UpBlock2D"] * 4],
        "attention_head_dim": 8,
        "norm_eps": 1e-5,
        "resnet_time_scale_shift": "scale_shift",
        "dropout": 0.1,
    },
)
TASK = replace(
    CIFAR2,
    name="celeba",
    title="CelebA as D-TRAK has it: 5,000 faces, 64x64, unconditional pixel DDPM",
    dataset="celeba",
    recipe=replace(CIFAR2.recipe, model=MODEL),
)
