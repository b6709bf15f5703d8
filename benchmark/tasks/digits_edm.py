"""digits-edm@1: the scans of `digits` under an EDM network, on which MUCS runs as its authors wrote it."""

from dataclasses import replace

from ...models.recipe import ModelSpec, Sampler
from .digits import TASK as DIGITS
from .spec import TruthPlan

MODEL = ModelSpec(
    architecture="UNet2DModel",
    config=DIGITS.recipe.model.config,
    process={"kind": "edm", "sigma_data": 0.75},  # the pixels' standard deviation
    sampler=Sampler(steps=18),
)
TASK = replace(
    DIGITS,
    name="digits-edm",
    title="Handwritten digits, 8x8, unconditional pixel EDM",
    recipe=replace(DIGITS.recipe, model=MODEL, learning_rate=6e-3, checkpoints=(150, 300)),
    truth=TruthPlan(report=64, open=32, report_replicates=2, open_replicates=1, full=5),
)
