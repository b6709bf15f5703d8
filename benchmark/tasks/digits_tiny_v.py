"""digits-tiny-v@1: digits-tiny by class, with v-prediction and guidance; for trying and testing only."""

from dataclasses import replace

from ...models.recipe import ModelSpec, Sampler
from .digits_tiny import TASK as TINY

MODEL = ModelSpec(
    architecture="UNet2DModel",
    config={
        **TINY.recipe.model.config,
        "num_class_embeds": 11,  # ten digits, and one label for none
        "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
        "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
        "attention_head_dim": 4,
    },
    process={"num_train_timesteps": 1000, "beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction"},
    sampler=Sampler(steps=4),
    null={"class_labels": 10},
)
TASK = replace(
    TINY,
    name="digits-tiny-v",
    title="A tiny digits by class, v-prediction and guidance, for trying and testing only",
    dataset="digits_classes",
    recipe=replace(TINY.recipe, model=MODEL, cond_drop=0.1),
    queries=replace(TINY.queries, guidance=2.0),
)
