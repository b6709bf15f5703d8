"""cifar2-mini@1: 300 automobiles and horses of CIFAR-10 by class, in latents of a small autoencoder."""

from pathlib import Path

from ...models.recipe import AutoencoderSpec, ModelSpec, Recipe, Sampler
from .spec import ExemplarPlan, QueryPlan, RemovalPlan, TaskSpec, TruthPlan

CHANNELS = 4
SCALE = 0.641  # 1 / the standard deviation of the latents of 500 such images
AUTOENCODER = Path(__file__).parent / "weights" / "cifar2-autoencoder.safetensors"
TASK = TaskSpec(
    name="cifar2-mini",
    version=1,
    title="CIFAR-10's automobiles and horses, 32x32 as 8x8 latents, EDM conditional on the class",
    dataset="cifar2_full",
    n_train=300,
    recipe=Recipe(
        model=ModelSpec(
            architecture="UNet2DModel",
            config={
                "sample_size": 8,
                "in_channels": CHANNELS,
                "out_channels": CHANNELS,
                "block_out_channels": [32, 48],
                "layers_per_block": 1,
                "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
                "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
                "norm_num_groups": 8,
                "attention_head_dim": 8,
                "num_class_embeds": 3,
            },
            process={"kind": "edm", "sigma_data": 1.0, "mean": -0.8},
            sampler=Sampler(steps=18, clip=False),
            null={"class_labels": 2},
            autoencoder=AutoencoderSpec(
                "AutoencoderKL",
                {
                    "in_channels": 3,
                    "out_channels": 3,
                    "down_block_types": ["DownEncoderBlock2D"] * 3,
                    "up_block_types": ["UpDecoderBlock2D"] * 3,
                    "block_out_channels": [16, 48, 64],
                    "layers_per_block": 1,
                    "latent_channels": CHANNELS,
                    "norm_num_groups": 8,
                    "sample_size": 32,
                    "mid_block_add_attention": False,
                },
                SCALE,
            ),
        ),
        steps=1250,
        batch_size=32,
        learning_rate=6e-3,
        warmup_steps=100,
        ema_decay=0.99,
        checkpoints=(625,),
        cond_drop=0.1,
    ),
    queries=QueryPlan(dev=12, test=20, controls=20, guidance=3.0),
    truth=TruthPlan(report=64, open=32, report_replicates=2, open_replicates=1, full=5, regenerated=False),
    removal=RemovalPlan(seeds=3),
    weights={"autoencoder": AUTOENCODER},
    exemplars=ExemplarPlan(),
)
