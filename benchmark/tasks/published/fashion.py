"""fashion@1: Fashion-MNIST, 5,000 of its training images, an unconditional pixel DDPM of 28x28 pixels.

No paper fixes a protocol for it: this is ``cifar2``'s on grey pictures, by a network of a quarter of the channels.
"""

from dataclasses import replace

from .cifar2 import TASK as CIFAR2

MODEL = replace(
    CIFAR2.recipe.model,
    config={
        "sample_size": 28,
        "in_channels": 1,
        "out_channels": 1,
        "block_out_channels": [32, 64, 64],
        "layers_per_block": 2,
        "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
        "attention_head_dim": 8,
        "norm_num_groups": 8,
        "dropout": 0.1,
    },
)
TASK = replace(
    CIFAR2,
    name="fashion",
    title="Fashion-MNIST, 5,000 images, 28x28, unconditional pixel DDPM",
    dataset="fashion_mnist",
    recipe=replace(CIFAR2.recipe, model=MODEL),
    queries=replace(CIFAR2.queries, test=100),
)
