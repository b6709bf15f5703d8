"""emoji@1: faces, cats and hearts by two artists, conditional on the artist, in latents of patches."""

from pathlib import Path

from ...models.recipe import AutoencoderSpec, ModelSpec, Recipe, Sampler
from .spec import ExemplarPlan, GroupPlan, QueryPlan, TaskSpec, TruthPlan

COMPONENTS, PATCH = 10, 4
AUTOENCODER = Path(__file__).parent / "weights" / "emoji-patches.safetensors"
TASK = TaskSpec(
    name="emoji",
    version=1,
    title="Emoji of two artists, 32x32 as 8x8 patches, EDM conditional on the artist",
    dataset="emoji",
    where={"category": ("Smileys & Emotion",)},
    n_train=306,
    recipe=Recipe(
        model=ModelSpec(
            architecture="UNet2DModel",
            config={
                "sample_size": 8,
                "in_channels": COMPONENTS,
                "out_channels": COMPONENTS,
                "block_out_channels": [32, 48],
                "layers_per_block": 1,
                "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
                "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
                "norm_num_groups": 8,
                "attention_head_dim": 8,
                "num_class_embeds": 3,
            },
            process={"kind": "edm", "sigma_data": 1.0, "mean": -0.5},
            sampler=Sampler(steps=18, clip=False),
            null={"class_labels": 2},
            autoencoder=AutoencoderSpec("PatchPCA", {"in_channels": 3, "patch": PATCH, "latent_channels": COMPONENTS}),
        ),
        steps=2000,
        batch_size=16,
        learning_rate=6e-3,
        warmup_steps=100,
        ema_decay=0.99,
        checkpoints=(1000,),
        cond_drop=0.1,
    ),
    queries=QueryPlan(dev=12, test=20, controls=20, guidance=1.5),
    truth=TruthPlan(report=64, open=32, report_replicates=2, open_replicates=1, full=5, regenerated=False),
    weights={"autoencoder": AUTOENCODER},
    groups=GroupPlan("artist_subcategory", replicates=2),
    exemplars=ExemplarPlan(by="artist_subcategory"),
)
