"""digits@1: a pixel DDPM on 8x8 scans of digits, small enough to retrain hundreds of times on a laptop."""

from ...models.recipe import ModelSpec, Recipe, Sampler
from .spec import QueryPlan, TaskSpec, TruthPlan

TASK = TaskSpec(
    name="digits",
    version=1,
    title="Handwritten digits, 8x8, unconditional pixel DDPM",
    dataset="digits",
    n_train=1500,
    recipe=Recipe(
        model=ModelSpec(
            architecture="UNet2DModel",
            config={
                "sample_size": 8,
                "in_channels": 1,
                "out_channels": 1,
                "block_out_channels": [16, 16],
                "layers_per_block": 1,
                "down_block_types": ["DownBlock2D", "DownBlock2D"],
                "up_block_types": ["UpBlock2D", "UpBlock2D"],
                "norm_num_groups": 4,
                "add_attention": False,
            },
            process={"num_train_timesteps": 1000, "beta_schedule": "linear"},
            sampler=Sampler(steps=25),
        ),
        steps=450,
        batch_size=64,
        learning_rate=3e-3,
        warmup_steps=45,
        ema_decay=0.98,
        checkpoints=(75, 150, 225, 300),
    ),
    queries=QueryPlan(dev=12, test=20, controls=20),
    truth=TruthPlan(report=96, open=64, report_replicates=2, open_replicates=1, full=5),
)
