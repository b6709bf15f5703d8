"""cifar2@1: D-TRAK's CIFAR-2 (Zheng et al., arXiv 2311.00500): automobiles and horses, an unconditional pixel DDPM.

From the authors' code (sail-sg/D-TRAK, e2a0c2e): network, optimiser, 8,000 updates (200 epochs of 5,000 images), no
averaging of weights; 64 subsets of a half, three seeds each; 1,000 held-out and 1,000 generated queries; for 60 of the
generated ones, the top 1,000 are removed once. What differs: queries' losses are over 1,000 draws, theirs over three
at each of 1,000 timesteps; no flips; subsets train as many updates as everything, where theirs train as many epochs;
of the 1,000 queries of each kind, 60 are for choosing, as are 64 more subsets.
"""

from ....models.recipe import ModelSpec, Recipe, Sampler
from ..spec import QueryPlan, RemovalPlan, TaskSpec, TruthPlan

DOWN = ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"]
TASK = TaskSpec(
    name="cifar2",
    version=1,
    title="CIFAR-2 as D-TRAK has it: automobiles and horses, 32x32, unconditional pixel DDPM",
    dataset="cifar2",
    n_train=5000,
    heldout="heldout",
    recipe=Recipe(
        model=ModelSpec(
            architecture="UNet2DModel",
            config={
                "sample_size": 32,
                "in_channels": 3,
                "out_channels": 3,
                "block_out_channels": [128, 256, 256, 256],
                "layers_per_block": 2,
                "down_block_types": DOWN,
                "up_block_types": ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
                "attention_head_dim": None,
                "downsample_padding": 0,
                "flip_sin_to_cos": False,
                "freq_shift": 1,
                "norm_eps": 1e-6,
                "resnet_time_scale_shift": "scale_shift",
                "dropout": 0.1,
            },
            process={"num_train_timesteps": 1000, "beta_schedule": "linear"},
            sampler=Sampler(steps=50),
        ),
        steps=8000,
        batch_size=128,
        learning_rate=1e-4,
        warmup_steps=800,
        ema_decay=0.0,
        checkpoints=(2000, 4000, 6000),
        weight_decay=1e-6,
        betas=(0.95, 0.999),
    ),
    queries=QueryPlan(dev=60, test=940, controls=20),
    truth=TruthPlan(
        report=64,
        open=64,
        report_replicates=3,
        open_replicates=1,
        full=3,
        draws_per_bin=125,
        regenerated=False,
    ),
    removal=RemovalPlan(top_share=0.0002, seeds=1, per_query=60, per_query_shares=(0.2,)),  # theirs has no union
)
