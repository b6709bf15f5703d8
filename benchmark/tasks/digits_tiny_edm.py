"""digits-tiny-edm@1: digits-tiny by class, EDM on a transformer; for trying and testing only."""

from dataclasses import replace

from ...models.recipe import ModelSpec, Sampler
from .digits_tiny import TASK as TINY

MODEL = ModelSpec(
    architecture="DiTTransformer2DModel",
    config={
        "sample_size": 8,
        "in_channels": 1,
        "out_channels": 1,
        "patch_size": 2,
        "num_layers": 2,
        "num_attention_heads": 2,
        "attention_head_dim": 8,
        "num_embeds_ada_norm": 10,  # one more label, the last, stands for none
    },
    process={"kind": "edm", "sigma_data": 0.75},
    sampler=Sampler(steps=8),
    null={"class_labels": 10},
)
TASK = replace(
    TINY,
    name="digits-tiny-edm",
    title="A tiny digits by class, EDM on a transformer, for trying and testing only",
    dataset="digits_classes",
    recipe=replace(TINY.recipe, model=MODEL, steps=50, learning_rate=1e-2),
)
