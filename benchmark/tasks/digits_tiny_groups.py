"""digits-tiny-groups@1: digits by class, each class left out in turn; for trying and testing only."""

from dataclasses import replace

from ...models.recipe import Sampler
from .digits_tiny_edm import TASK as BY_CLASS
from .spec import GroupPlan, QueryPlan, TruthPlan

MODEL = replace(
    BY_CLASS.recipe.model, config={**BY_CLASS.recipe.model.config, "num_layers": 1}, sampler=Sampler(steps=4)
)
TASK = replace(
    BY_CLASS,
    name="digits-tiny-groups",
    title="A tiny digits by class, each class left out in turn, for trying and testing only",
    n_train=200,
    recipe=replace(BY_CLASS.recipe, model=MODEL, steps=40, batch_size=32),
    queries=QueryPlan(dev=2, test=8, controls=2),
    truth=TruthPlan(report=3, open=2, report_replicates=1, open_replicates=1, full=2, bins=4, draws_per_bin=4),
    groups=GroupPlan(by="class_labels", replicates=2),
)
