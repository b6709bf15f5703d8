"""artbench2-lora@1: D-TRAK's ArtBench-2 (Zheng et al., arXiv 2311.00500): adapters on a small Stable Diffusion.

From the authors' code (sail-sg/D-TRAK, e2a0c2e): lambdalabs/miniSD-diffusers, 256x256 pixels as latents, prompts "a
... painting", adapters of rank 128 on every attention, 7,900 updates (100 epochs of 5,000 images) of 64 images at
3e-4; DDIM of 50 steps and guidance 7.5, the pipeline's defaults; subsets, losses and removal as ``cifar2``, and the
same differences. DDIM's levels are those of Stable Diffusion's schedulers, 981 to 1, and its last step ends at the
grid's cleanest. What differs beside: it trains in single precision, theirs in half; theirs has a dropout of 0.1 after
every attention, and trains on samples of the autoencoder's distribution, where this takes its mode.

The frozen weights are not shipped: a copy of the pipeline's folder goes into ``$TDABENCH_HOME/weights/miniSD-
diffusers``.
"""

from dataclasses import replace

from ....models.recipe import AutoencoderSpec, LoRA, ModelSpec, Sampler
from ....store import home
from .cifar2 import TASK as CIFAR2

FOLDER, FILE = home() / "weights" / "miniSD-diffusers", "diffusion_pytorch_model.safetensors"
MODEL = ModelSpec(
    architecture="UNet2DConditionModel",
    config={
        "sample_size": 32,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": [320, 640, 1280, 1280],
        "cross_attention_dim": 768,
        "attention_head_dim": 8,
    },
    process={
        "num_train_timesteps": 1000,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "steps_offset": 1,  # StableDiffusionPipeline sets it whatever is saved
        "set_alpha_to_one": False,
    },
    sampler=Sampler(steps=50, clip=False),
    autoencoder=AutoencoderSpec(
        "AutoencoderKL",
        {
            "sample_size": 256,
            "in_channels": 3,
            "out_channels": 3,
            "latent_channels": 4,
            "block_out_channels": [128, 256, 512, 512],
            "layers_per_block": 2,
            "down_block_types": ["DownEncoderBlock2D"] * 4,
            "up_block_types": ["UpDecoderBlock2D"] * 4,
        },
        scale=0.18215,
    ),
    trainable=LoRA(128),
)
TASK = replace(
    CIFAR2,
    name="artbench2-lora",
    title="ArtBench-2 as D-TRAK has it: two styles by prompt, 256x256, LoRA on latents",
    dataset="artbench2",
    recipe=replace(
        CIFAR2.recipe,
        model=MODEL,
        steps=7900,
        batch_size=64,
        learning_rate=3e-4,
        warmup_steps=790,
        checkpoints=(),
        betas=(0.9, 0.999),
    ),
    queries=replace(CIFAR2.queries, guidance=7.5),
    weights={"autoencoder": FOLDER / "vae" / FILE, "base": FOLDER / "unet" / FILE},
)
