"""cifar10-edm-dit@1: MUCS' CIFAR-10 (arXiv 2605.17938): 50,000 images, an unconditional diffusion transformer, EDM.

From the authors' code (sony/mucs, a210019, cifar10_dit_edm): 12 blocks of 768 channels and 12 heads, EDM with
sigma_data 0.5, 32 Heun steps, no guidance; AdamW at 1e-4, averaged weights (0.999), batches of 128; 20 targets and 20
controls a seed, and the union of the targets' top 1,000 is removed. What differs: theirs has a convolution before and
after the transformer, 32 extra tokens, and one narrow embedding of the level for all blocks, where diffusers' DiT has
one in every block (138 M parameters instead of 99 M), and one label, which is the same for all images; it stops early,
within 200 epochs of 1,000 updates, where this trains them all; it flips images at random, and turns, scales, stretches
and moves 12 % of them; its rate stays after warming up. Subsets and held-out queries, from the test part, are D-TRAK's
protocol: the code has none.
"""

from ....models.recipe import ModelSpec, Recipe, Sampler
from ..spec import QueryPlan, RemovalPlan, TaskSpec, TruthPlan

TASK = TaskSpec(
    name="cifar10-edm-dit",
    version=1,
    title="CIFAR-10 as MUCS has it: 32x32, unconditional diffusion transformer, EDM",
    dataset="cifar10_unlabelled",
    n_train=50_000,
    heldout="heldout",
    recipe=Recipe(
        model=ModelSpec(
            architecture="DiTTransformer2DModel",
            config={
                "sample_size": 32,
                "patch_size": 2,
                "in_channels": 3,
                "out_channels": 3,
                "num_layers": 12,
                "num_attention_heads": 12,
                "attention_head_dim": 64,
                "num_embeds_ada_norm": 1,
                "dropout": 0.1,
            },
            process={"kind": "edm", "sigma_data": 0.5},
            sampler=Sampler(steps=32),
            null={"class_labels": 1},
        ),
        steps=200_000,
        batch_size=128,
        learning_rate=1e-4,
        warmup_steps=10_000,
        ema_decay=0.999,
        checkpoints=(50_000, 100_000, 150_000),
        clip_norm=0.0,
    ),
    queries=QueryPlan(dev=20, test=20, controls=20, guidance=1.0),
    truth=TruthPlan(report=64, open=32, report_replicates=2, open_replicates=1, full=2, regenerated=False),
    removal=RemovalPlan(top_share=1000 / 50_000, seeds=3, per_query=1, per_query_shares=(0.02,)),
)
