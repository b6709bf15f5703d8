"""digits-tiny@1: the same code path as digits in seconds, for trying and testing; its scores mean nothing."""

from ...models.recipe import ModelSpec, Recipe, Sampler
from ..task import QueryPlan, TaskSpec, TruthPlan

TASK = TaskSpec(
    name="digits-tiny",
    version=1,
    title="A tiny twin of digits, for trying and testing only",
    dataset="digits",
    n_train=60,
    recipe=Recipe(
        model=ModelSpec(
            architecture="UNet2DModel",
            config={
                "sample_size": 8,
                "in_channels": 1,
                "out_channels": 1,
                "block_out_channels": [8, 8],
                "layers_per_block": 1,
                "down_block_types": ["DownBlock2D", "DownBlock2D"],
                "up_block_types": ["UpBlock2D", "UpBlock2D"],
                "norm_num_groups": 4,
                "add_attention": False,
            },
            process={"num_train_timesteps": 1000, "beta_schedule": "linear"},
            sampler=Sampler(steps=4),
        ),
        steps=25,
        batch_size=16,
        learning_rate=3e-3,
        warmup_steps=3,
        ema_decay=0.8,
        checkpoints=(10,),
    ),
    queries=QueryPlan(dev=2, test=3, controls=2),
    truth=TruthPlan(report=10, open=6, report_replicates=2, open_replicates=1, full=2, bins=4, draws_per_bin=4),
)
