"""digits-tiny@1: the same code path as digits in seconds, for trying and testing; its scores mean nothing."""

from dataclasses import replace

from ...models.recipe import Sampler
from .digits import TASK as DIGITS
from .spec import ExemplarPlan, QueryPlan, RemovalPlan, TruthPlan

MODEL = replace(
    DIGITS.recipe.model,
    config={**DIGITS.recipe.model.config, "block_out_channels": [8, 8]},
    sampler=Sampler(steps=4),
)
TASK = replace(
    DIGITS,
    name="digits-tiny",
    title="A tiny twin of digits, for trying and testing only",
    n_train=60,
    recipe=replace(
        DIGITS.recipe, model=MODEL, steps=25, batch_size=16, warmup_steps=3, ema_decay=0.8, checkpoints=(10,)
    ),
    queries=QueryPlan(dev=2, test=3, controls=2),
    truth=TruthPlan(report=10, open=6, report_replicates=2, open_replicates=1, full=2, bins=4, draws_per_bin=4),
    removal=RemovalPlan(top_share=0.1, seeds=2, per_query=2, per_query_shares=(0.1, 0.3)),
    exemplars=ExemplarPlan(ks=(1, 2), cases=2, queries=2, strengths=(0.1, 1.0)),
)
