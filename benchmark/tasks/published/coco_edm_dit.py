"""coco-edm-dit@1: MUCS' COCO (arXiv 2605.17938): 118,287 photographs by caption, a diffusion transformer, EDM.

From the authors' code (sony/mucs, a210019, coco_dit_edm): as ``artbench10-edm-dit``, by the vector of a caption (CLIP
ViT-L/14, 768 numbers), guidance 3, 300 epochs; the union of the targets' top 2,366 is removed. What differs beside:
theirs adds the vector to the embedding of the level, and no class of diffusers does only that; PixArt's transformer
reads it by cross-attention instead (119 M parameters, theirs 142 M). No caption is a vector of zeros, where theirs
learns one.
"""

from dataclasses import replace

from ....models.recipe import ModelSpec
from ..spec import RemovalPlan
from .artbench10_edm_dit import TASK as ARTBENCH10

MODEL = ModelSpec(
    architecture="PixArtTransformer2DModel",
    config={
        "sample_size": 64,
        "patch_size": 4,
        "in_channels": 3,
        "out_channels": 3,
        "num_layers": 12,
        "num_attention_heads": 12,
        "attention_head_dim": 64,
        "cross_attention_dim": 768,
        "caption_channels": 768,
        "use_additional_conditions": False,
        "dropout": 0.1,
    },
    process=ARTBENCH10.recipe.model.process,
    sampler=ARTBENCH10.recipe.model.sampler,
    null={"encoder_hidden_states": "zeros"},
)
TASK = replace(
    ARTBENCH10,
    name="coco-edm-dit",
    title="MS COCO as MUCS has it: 64x64, diffusion transformer by caption, EDM",
    dataset="coco",
    n_train=118_287,
    recipe=replace(ARTBENCH10.recipe, model=MODEL, steps=300_000),
    queries=replace(ARTBENCH10.queries, guidance=3.0),
    removal=RemovalPlan(top_share=2366 / 118_287, seeds=3, per_query=1, per_query_shares=(0.02,)),
)
